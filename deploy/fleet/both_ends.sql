-- Connections between hosts that both record: what each end says of the same one. Add a condition on addresses or
-- times to look at one of them, or `client.cause = 'peer_rst' AND server.cause = 'peer_rst'` for those where each end
-- blames the other: something between them sent the RSTs.
--
-- The same addresses and ports can be used again, so the two lives must overlap, or nearly: the hosts' clocks may
-- differ by a second. Every host has the addresses of loopback for itself, so they tell nothing here. Behind a NAT the
-- ends have different addresses, and do not meet.
WITH ends AS (
    SELECT
        host, netns, id, role, laddr, lport, raddr, rport, cause, duration_us, retransmits, tx_bytes, rx_bytes,
        coalesce(opened_ts, ts) AS opened, ts AS ended
    FROM tcptrace
    WHERE kind = 'connection' AND laddr NOT LIKE '127.%' AND laddr <> '::1'
)
SELECT
    client.opened AS opened,
    client.host AS client_host,
    client.id AS client_id,
    client.laddr AS client_addr,
    client.lport AS client_port,
    client.cause AS client_cause,
    client.duration_us AS client_us,
    client.tx_bytes AS client_tx,
    client.retransmits AS client_retransmits,
    server.host AS server_host,
    server.id AS server_id,
    server.laddr AS server_addr,
    server.lport AS server_port,
    server.cause AS server_cause,
    server.duration_us AS server_us,
    server.tx_bytes AS server_tx,
    server.retransmits AS server_retransmits
FROM ends AS client
INNER JOIN ends AS server
    ON client.laddr = server.raddr AND client.lport = server.rport
    AND client.raddr = server.laddr AND client.rport = server.lport
WHERE client.role = 'client'
    AND server.role = 'server'
    AND (client.host <> server.host OR client.netns <> server.netns)
    AND client.opened <= server.ended + INTERVAL 1 SECOND
    AND server.opened <= client.ended + INTERVAL 1 SECOND
ORDER BY opened, client_host, client_id
