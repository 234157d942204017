-- RSTs by host, and why: the ledger of `tcptrace rst --from` without peers and owners.
SELECT
    host,
    CASE WHEN kind = 'rst_sent' THEN 'sent' ELSE 'received' END AS direction,
    coalesce(reason, '-') AS reason,
    coalesce(prev_state, '-') AS prev_state,
    count(*) AS resets
FROM tcptrace
WHERE kind IN ('rst_sent', 'rst_received')
GROUP BY 1, 2, 3, 4
ORDER BY resets DESC, 1, 2, 3, 4
