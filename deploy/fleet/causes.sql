-- Why connections ended, by host: a count of the lines of `tcptrace conns --from`.
SELECT
    host,
    coalesce(role, '-') AS role,
    cause,
    count(*) AS connections
FROM tcptrace
WHERE kind = 'connection'
GROUP BY 1, 2, 3
ORDER BY connections DESC, 1, 2, 3
