//! Settings that do harm.

use std::net::TcpListener;

use crate::support::{
    doctor::Doctor,
    host::{sysctl, sysctl_if_any},
    netns::scenario,
    tcp::LOCALHOST,
};

/// A new network namespace has the kernel's own settings.
#[test]
fn usual_settings() {
    scenario(|net| {
        let _listener = TcpListener::bind((LOCALHOST, 8080)).unwrap();
        Doctor::of(net, &[]).finds(&[]);
    });
}

#[test]
fn unusual_settings() {
    scenario(|net| {
        let settings = [
            ("tcp_abort_on_overflow", "1"),
            ("tcp_sack", "0"),
            ("tcp_window_scaling", "0"),
            ("tcp_fin_timeout", "1"),
            ("tcp_max_tw_buckets", "100"),
        ];
        for (name, value) in settings {
            sysctl(&format!("ipv4/{name}"), value);
        }
        let found = Doctor::of(net, &[]).finds(&["sysctls"; 5]);
        for (name, value) in settings {
            let is_it = format!("{name}={value}: ");
            assert!(found.all("sysctls").iter().any(|finding| finding.title().starts_with(&is_it)), "{name}");
        }
    });
}

/// A client can take the port of a service, unless it is reserved.
#[test]
fn ports_of_services() {
    scenario(|net| {
        sysctl("ipv4/ip_local_port_range", "8000 60999");
        let _listener = TcpListener::bind((LOCALHOST, 8080)).unwrap();
        let found = Doctor::of(net, &[]).finds(&["sysctls"]);
        found.of("sysctls").is_warning().says("reaches port 8080 of live-scenario/");
        sysctl_if_any("ipv4/ip_local_reserved_ports", "8080-8089");
        Doctor::of(net, &[]).finds(&[]);
    });
}
