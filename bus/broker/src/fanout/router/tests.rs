use std::sync::Condvar;

use bus::admin::Admin;
use tokio::sync::Notify;

use super::*;
use crate::message::{Draft, Parts};
use crate::wire::Qos;

const DEADLINE: Duration = Duration::from_secs(20);

/// Counts what arrives, and can be held up.
#[derive(Default)]
struct Counter {
    got: Mutex<Vec<u64>>,
    more: Notify,
    is_held: Mutex<bool>,
    released: Condvar,
}

impl Sink for Counter {
    fn deliver(&self, messages: &mut Vec<Message>) {
        let held = self
            .released
            .wait_timeout_while(lock(&self.is_held), DEADLINE, |held| *held);
        drop(held.unwrap());
        lock(&self.got).extend(messages.drain(..).map(|message| message.seq()));
        self.more.notify_one();
    }
}

impl Counter {
    async fn reaches(&self, last: u64) {
        let reached = async {
            while lock(&self.got).last() != Some(&last) {
                self.more.notified().await;
            }
        };
        tokio::time::timeout(DEADLINE, reached)
            .await
            .expect("all messages arrive");
    }

    fn hold(&self, held: bool) {
        *lock(&self.is_held) = held;
        self.released.notify_all();
    }
}

struct Core {
    fanout: RouterFanout,
    metrics: Arc<Metrics>,
    seq: u64,
    position: u64,
}

impl Core {
    async fn new() -> Self {
        let metrics = Arc::new(Metrics::new(&Admin::default()));
        let fanout = RouterFanout::start(10, metrics.clone(), Shutdown::new())
            .await
            .unwrap();
        Self {
            fanout,
            metrics,
            seq: 0,
            position: 0,
        }
    }

    fn publish(&mut self, topic: &str, payload: &[u8]) {
        let draft = Draft::new(&Parts {
            topic,
            payload,
            qos: Qos::AtMostOnce,
            retain: false,
            origin: 0,
            expires: None,
            properties: &[],
        });
        self.seq += 1;
        let len = draft.len() as u64;
        self.fanout
            .publish(draft.seal(self.seq, self.position))
            .unwrap();
        self.position += len;
    }

    async fn attach(&self, filters: &[&str]) -> (Arc<Counter>, Box<dyn Link>) {
        let counter = Arc::new(Counter::default());
        let sink: Arc<dyn Sink> = counter.clone();
        let link = self.fanout.attach(Arc::downgrade(&sink)).await.unwrap();
        for filter in filters {
            link.subscribe(filter).await.unwrap();
        }
        (counter, link)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_arrives_whole_and_in_order() {
    let mut core = Core::new().await;
    let (all, _one) = core.attach(&["#"]).await;
    let (several, _two) = core.attach(&["f/+", "+/x", "f/#"]).await;
    for _ in 0..200_000 {
        if core.fanout.is_congested() {
            core.fanout.relieved().await;
        }
        core.publish("f/x", &[0; 64]);
    }
    for counter in [all, several] {
        counter.reaches(core.seq).await;
        let got = lock(&counter.got);
        let jump = got.windows(2).find(|pair| pair[0] + 1 != pair[1]);
        assert_eq!((got.len() as u64, jump), (core.seq, None));
    }
    assert_eq!(core.metrics.gaps.get(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_lost_is_counted() {
    let mut core = Core::new().await;
    let (counter, _link) = core.attach(&["#"]).await;
    core.publish("f", b"first");
    counter.reaches(1).await;
    // Far more than the Router keeps, while nobody reads and nobody waits.
    counter.hold(true);
    for _ in 0..10_000 {
        core.publish("f", &[0; 1024]);
        // The Router takes what was handed over before more comes.
        while lock(&core.fanout.shared.ingest).backlog() > 100 {
            std::thread::yield_now();
        }
    }
    counter.hold(false);
    counter.reaches(core.seq).await;
    let got = lock(&counter.got).len() as u64;
    assert!(got < core.seq);
    assert_eq!(core.metrics.gaps.get(), core.seq - got);
    assert!(lock(&counter.got).is_sorted());
}

#[tokio::test]
async fn links_come_and_go_under_the_same_numbers() {
    let mut core = Core::new().await;
    let (_, _stays) = core.attach(&["#"]).await;
    for _ in 0..200 {
        let (counter, link) = core.attach(&["a", "b/+"]).await;
        core.publish("a", b"x");
        counter.reaches(core.seq).await;
        link.unsubscribe("a").await.unwrap();
        core.publish("a", b"x");
        core.publish("b/c", b"x");
        counter.reaches(core.seq).await;
        assert_eq!(lock(&counter.got).len(), 2);
        drop(link);
    }
    // The last one to leave may not have been noticed before the next one came.
    assert!(lock(&core.fanout.shared.numbers).next <= 10);
}

#[tokio::test]
async fn a_link_whose_sink_is_gone_ends() {
    let core = Core::new().await;
    let (counter, link) = core.attach(&["#"]).await;
    drop(counter);
    let mut core = core;
    core.publish("a", b"x");
    let ended = async {
        while link.subscribe("b").await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, ended).await.unwrap();
}
