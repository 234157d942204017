-- The hosts where most goes wrong, the worst first.
--
-- failed: connections that ended otherwise than by both sides' FINs, or with their listener.
-- lost: events that the recorder did not see; with many of them the rest is too low.
WITH hosts AS (
    SELECT
        host,
        count(CASE WHEN kind = 'connection' THEN 1 END) AS connections,
        count(CASE WHEN kind = 'connection' AND cause NOT IN (
            'local_fin', 'peer_fin', 'simultaneous_close', 'listener_closed', 'unknown'
        ) THEN 1 END) AS failed,
        count(CASE WHEN kind IN ('rst_sent', 'rst_received') THEN 1 END) AS resets,
        coalesce(sum(CASE WHEN kind = 'connection' THEN retransmits END), 0) AS retransmits,
        coalesce(sum(CASE WHEN kind = 'lost' THEN lost END), 0) AS lost
    FROM tcptrace
    GROUP BY host
)
SELECT
    host,
    connections,
    failed,
    100e0 * failed / nullif(connections, 0) AS failed_percent,
    resets,
    retransmits,
    lost
FROM hosts
ORDER BY failed_percent DESC, failed DESC, host
