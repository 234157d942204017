//! What HTTP serves: a page is made when one is wanted and the last is not fresh.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use hyper::body::Bytes;
use prometheus_client::registry::Registry;
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};

use crate::view::metrics::{Exposition, Format, encode, registry};

/// How long a page is fresh, in ns.
pub(super) const FRESH_NS: u64 = 1_000_000_000;
/// How long HTTP waits for a page.
const PATIENCE: Duration = Duration::from_secs(5);
/// How old a page may be that is given where no other came in time.
const STALE: Duration = Duration::from_mins(1);

/// All that is counted, at a time.
pub(super) struct Page {
    made: Instant,
    registry: Registry,
    openmetrics: OnceLock<Bytes>,
    prometheus: OnceLock<Bytes>,
}

impl Page {
    /// As text, which is made once: by HTTP, so that it costs the tracing nothing.
    pub(super) fn text(&self, format: Format) -> Bytes {
        let text = match format {
            Format::OpenMetrics => &self.openmetrics,
            Format::Prometheus => &self.prometheus,
        };
        text.get_or_init(|| encode(&self.registry, format).into()).clone()
    }
}

/// Both ends of the way of pages.
pub(super) fn channel() -> (Publisher, Pages) {
    let (sender, latest) = watch::channel(None);
    let wanted = Arc::new(Notify::new());
    (Publisher { sender, wanted: Arc::clone(&wanted) }, Pages { latest, wanted })
}

/// The end of who makes them.
pub(super) struct Publisher {
    sender: watch::Sender<Option<Arc<Page>>>,
    wanted: Arc<Notify>,
}

impl Publisher {
    /// Comes back when a page is wanted. Cancel-safe.
    pub(super) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// Hands over a page.
    pub(super) fn publish(&self, exposition: Exposition) {
        self.sender.send_replace(Some(Arc::new(Page {
            made: Instant::now(),
            registry: registry(exposition),
            openmetrics: OnceLock::new(),
            prometheus: OnceLock::new(),
        })));
    }
}

/// The end of who shows them.
#[derive(Clone)]
pub(super) struct Pages {
    latest: watch::Receiver<Option<Arc<Page>>>,
    wanted: Arc<Notify>,
}

impl Pages {
    /// Whether there is any.
    pub(super) fn are_there(&self) -> bool {
        self.latest.borrow().is_some()
    }

    /// One that is fresh, or the last where none comes in time; or why there is none.
    pub(super) async fn get(&self) -> Result<Arc<Page>, &'static str> {
        let mut latest = self.latest.clone();
        if let Some(page) = &*latest.borrow_and_update()
            && page.made.elapsed() < Duration::from_nanos(FRESH_NS)
        {
            return Ok(Arc::clone(page));
        }
        self.wanted.notify_one();
        match timeout(PATIENCE, latest.changed()).await {
            Ok(Ok(())) => latest.borrow().clone().ok_or("there is no page\n"),
            Ok(Err(_)) => Err("tcptrace is stopping\n"),
            Err(_) => {
                let last = latest.borrow().clone().filter(|page| page.made.elapsed() < STALE);
                last.ok_or("the sockets that exist are still being read: not within 5 s\n")
            }
        }
    }

    /// Comes back when there will be no more.
    pub(super) async fn over(&mut self) {
        while self.latest.changed().await.is_ok() {}
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[tokio::test]
    async fn where_none_comes_in_time_the_last_is_given_unless_it_is_old() {
        let given = |seconds| async move {
            let (publisher, pages) = channel();
            publisher.sender.send_replace(Some(Arc::new(Page {
                made: Instant::now().checked_sub(Duration::from_secs(seconds)).unwrap(),
                registry: Registry::default(),
                openmetrics: OnceLock::new(),
                prometheus: OnceLock::new(),
            })));
            let given = pages.get().await;
            // One was asked for all the same.
            publisher.wanted().await;
            given.is_ok()
        };
        assert_eq!(tokio::join!(given(2), given(60)), (true, false));
    }
}
