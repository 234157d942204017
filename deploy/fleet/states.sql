-- How many sockets each host had in each state, by the service's port: what `tcptrace hist --from` prints last.
--
-- A recording says now and then which sockets exist; these are the last ones it named. Each `snapshot` row has its
-- `socket` rows beside it, with the same time. `side` tells whose service it is: `client` the peer's, `server` this
-- host's, to which listeners count.
WITH ends AS (
    SELECT host AS ended, max(ts) AS last_ts
    FROM tcptrace
    WHERE kind = 'snapshot'
    GROUP BY host
),
existing AS (
    SELECT
        host,
        new AS state,
        lport,
        rport,
        -- What was there before the recorder may have no role; ports of services are smaller than those handed out.
        CASE WHEN role = 'client' OR (role IS NULL AND rport < lport) THEN 'client' ELSE 'server' END AS side
    FROM tcptrace
    INNER JOIN ends ON host = ended AND ts = last_ts
    WHERE kind = 'socket'
)
SELECT
    host,
    CASE WHEN side = 'client' THEN rport ELSE lport END AS port,
    side,
    state,
    count(*) AS sockets
FROM existing
GROUP BY 1, 2, 3, 4
ORDER BY 1, 2, 3, 4
