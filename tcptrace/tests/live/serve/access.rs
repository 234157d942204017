//! Who may read what.

use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt as _};

use crate::{
    privileges::rights,
    programs::Directory,
    support::{
        netns::scenario,
        serve::{Answer, Serve},
    },
};

#[test]
fn each_path_has_its_answer() {
    scenario(|net| {
        let serve = Serve::of(net, &[]);
        for (path, status) in
            [("/metrics", 200), ("/healthz", 200), ("/", 200), ("/nothing", 404), ("/metrics/", 404)]
        {
            assert_eq!(serve.get(path).status, status, "{path}");
        }
        // What was there before is known when the metrics are given.
        assert_eq!(serve.get("/readyz").status, 200);
        let accepting = |accept: &str| {
            let Answer { head, body, .. } =
                serve.ask(&format!("GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n\r\n")).unwrap();
            let kind = head.lines().find_map(|line| line.strip_prefix("content-type: ")).unwrap().to_owned();
            (kind, body.ends_with("# EOF\n"))
        };
        let openmetrics = ("application/openmetrics-text; version=1.0.0; charset=utf-8".to_owned(), true);
        let prometheus = ("text/plain; version=0.0.4; charset=utf-8".to_owned(), false);
        assert_eq!(accepting("*/*"), prometheus);
        assert_eq!(accepting("application/openmetrics-text; version=1.0.0,text/plain;q=0.5"), openmetrics);
        for (method, status) in [("POST", 405), ("DELETE", 405), ("OPTIONS", 405)] {
            let answer = serve.ask(&format!("{method} /metrics HTTP/1.1\r\nHost: x\r\n\r\n")).unwrap();
            assert_eq!(
                (answer.status, answer.head.contains("allow: GET, HEAD")),
                (status, true),
                "{answer:?}"
            );
        }
        let refused =
            serve.ask("POST /metrics HTTP/1.1\r\nContent-Length: 5\r\nHost: x\r\n\r\nhello").unwrap();
        assert_eq!(refused.status, 405);
        serve.stop();
    });
}

#[test]
fn a_token_is_asked_for() {
    scenario(|net| {
        let directory = Directory::new();
        let file = directory.file("token");
        fs::write(&file, "letmein123\n").unwrap();
        // Root's alone, as is the port: both are taken while it may.
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let serve = Serve::at("0.0.0.0:443", net, &["--token-file", file.to_str().unwrap()]);
        assert!(!serve.said().contains("--insecure"), "{}", serve.said());
        let with =
            |header: &str| serve.ask(&format!("GET /metrics HTTP/1.1\r\nHost: x\r\n{header}\r\n")).unwrap();
        for header in [
            "",
            "Authorization: Bearer wrong\r\n",
            "Authorization: Bearer letmein12\r\n",
            "Authorization: Bearer letmein1234\r\n",
            "Authorization: Bearer \r\n",
            "Authorization: Basic letmein123\r\n",
            "Authorization: letmein123\r\n",
            "Authorization: Bearer\u{e9}letmein123\r\n",
            "Cookie: letmein123\r\n",
        ] {
            let answer = with(header);
            assert_eq!(answer.status, 401, "{header}");
            assert!(answer.head.contains("www-authenticate: Bearer"), "{}", answer.head);
            assert!(!answer.body.contains("tcptrace_"), "{}", answer.body);
        }
        assert_eq!(serve.get("/").status, 401);
        assert_eq!(serve.get("/nothing").status, 401);
        // Who asks whether it runs has no token.
        assert_eq!((serve.get("/healthz").status, serve.get("/readyz").status), (200, 200));
        assert_eq!(with("authorization: bearer letmein123\r\n").status, 200);
        assert!(with("Authorization: Bearer letmein123\r\n").body.contains("tcptrace_sockets{"));
        // Nothing is kept of what took the port and the file: neither in the loop nor in the thread of HTTP.
        assert_eq!(rights(serve.process().pid()).len(), 1);
        let kept = 1 << 2 | 1 << 19 | 1 << 21;
        assert_eq!(rights(serve.process().pid()), BTreeSet::from([(kept, kept, 0, false)]));
        serve.stop();
    });
}

#[test]
fn without_protection_it_is_said_aloud() {
    scenario(|net| {
        let serve = Serve::at("0.0.0.0:9469", net, &["--insecure"]);
        let warnings = serve.said().matches("--insecure").count();
        assert_eq!((warnings, serve.address().to_string().as_str()), (1, "0.0.0.0:9469"), "{}", serve.said());
        assert_eq!(serve.get("/metrics").status, 200);
        serve.stop();
    });
}
