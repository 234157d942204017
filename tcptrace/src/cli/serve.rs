//! The flags of `serve`.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;

use super::{args::Shared, values};

pub(super) const SERVE_EXAMPLES: &str = "\
Examples:
  sudo tcptrace serve                  http://127.0.0.1:9469/metrics, for a Prometheus here
  sudo tcptrace serve --listen 10.0.0.5:9469 --tls-cert host.pem --tls-key host.key
                                       for one elsewhere
  sudo tcptrace serve --listen 10.0.0.5:9469 --token-file /etc/tcptrace/token
                                       for whoever sends that token
  sudo tcptrace serve -L 443,8443 --by-comm
                                       two ports, with the name of the owner

/metrics has all that is counted, /healthz says that it runs, /readyz that it sees.

Exit status: 0 done; 1 could not run; 2 wrong usage; 3 events lost with --strict.";

const SERVING: &str = "Serving";
const METRICS: &str = "Metrics";

/// The flags of `serve`.
#[derive(Clone, Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub struct Serve {
    /// Where to listen; beyond loopback only with TLS, a token, or --insecure
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9469", value_parser = values::endpoint, help_heading = SERVING)]
    pub listen: SocketAddr,
    /// Speak TLS, with this certificate, and those that vouch for it, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_key", help_heading = SERVING)]
    pub tls_cert: Option<PathBuf>,
    /// The certificate's private key, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert", help_heading = SERVING)]
    pub tls_key: Option<PathBuf>,
    /// Give metrics only to who sends the token in this file (Authorization: Bearer TOKEN)
    #[arg(long, value_name = "FILE", help_heading = SERVING)]
    pub token_file: Option<PathBuf>,
    /// Listen beyond loopback although everybody there may read it all
    #[arg(long, help_heading = SERVING)]
    pub insecure: bool,

    /// Ports with a label of their own at most, half of them for services of others; the rest is `other`
    #[arg(long, value_name = "N", default_value = "200", help_heading = METRICS)]
    pub max_ports: u16,
    /// A label with the owner's name, too; --max-ports is then the limit of pairs
    #[arg(long, help_heading = METRICS)]
    pub by_comm: bool,
    /// A label with the container or systemd unit that the socket was made in, too; --max-ports then limits these pairs
    #[arg(long, help_heading = METRICS)]
    pub by_container: bool,
    /// Measure what the probes cost in the kernel; this makes every BPF program of the host 20 to 40 ns slower
    #[arg(long, help_heading = METRICS)]
    pub kernel_stats: bool,

    /// What all watching commands share.
    #[command(flatten)]
    pub shared: Shared,
}
