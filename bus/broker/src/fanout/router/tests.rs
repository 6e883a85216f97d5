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
    fn deliver(&self, messages: &[Message]) {
        let held = self
            .released
            .wait_timeout_while(lock(&self.is_held), DEADLINE, |held| *held);
        drop(held.unwrap());
        lock(&self.got).extend(messages.iter().map(Message::seq));
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

    /// Takes out what arrived, once it is so many.
    async fn takes(&self, count: usize) -> Vec<u64> {
        let arrived = async {
            while lock(&self.got).len() < count {
                self.more.notified().await;
            }
        };
        tokio::time::timeout(DEADLINE, arrived)
            .await
            .expect("all messages arrive");
        std::mem::take(&mut *lock(&self.got))
    }

    fn hold(&self, held: bool) {
        *lock(&self.is_held) = held;
        self.released.notify_all();
    }
}

fn draft(topic: &str, payload: &[u8]) -> Draft {
    Draft::new(&Parts {
        topic,
        payload,
        qos: Qos::AtMostOnce,
        retain: false,
        origin: 0,
        expires: None,
        properties: &[],
    })
}

struct Core {
    fanout: RouterFanout,
    metrics: Arc<Metrics>,
    seq: u64,
    position: u64,
}

impl Core {
    fn new() -> Self {
        let metrics = Arc::new(Metrics::new(&Admin::default()));
        let fanout = RouterFanout::with_hubs(2, metrics.clone(), &Shutdown::new()).unwrap();
        Self {
            fanout,
            metrics,
            seq: 0,
            position: 0,
        }
    }

    fn publish(&mut self, topic: &str, payload: &[u8]) {
        let draft = draft(topic, payload);
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
        let link = self.fanout.attach(Arc::downgrade(&sink));
        for filter in filters {
            link.subscribe(filter).await.unwrap();
        }
        (counter, link)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_arrives_whole_and_in_order() {
    let mut core = Core::new();
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
    let mut core = Core::new();
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

/// A link that was far behind and has caught up holds publishers up no longer, although nothing
/// more comes that could say so.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_end_of_a_congestion_is_noticed() {
    let mut core = Core::new();
    let (counter, _link) = core.attach(&["f", "other", "another"]).await;
    let (_on_the_other_hub, _same) = core.attach(&["f"]).await;
    for _ in 0..20 {
        counter.hold(true);
        for _ in 0..900 {
            core.publish("f", &[0; 1024]);
        }
        while lock(&core.fanout.shared.ingest).backlog() > 0 {
            std::thread::yield_now();
        }
        counter.hold(false);
        counter.reaches(core.seq).await;
        let over = async {
            while core.fanout.is_congested() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(DEADLINE, over).await.unwrap();
    }
    assert_eq!(core.metrics.gaps.get(), 0);
}

/// Publishers wait for nobody's sake.
#[tokio::test]
async fn a_hub_that_nobody_is_left_at_holds_nobody_up() {
    let mut core = Core::new();
    let (counter, link) = core.attach(&["f"]).await;
    core.publish("f", b"x");
    counter.reaches(core.seq).await;
    drop(link);
    for _ in 0..1_000 {
        core.publish("f", &[0; 1024]);
    }
    let over = async {
        while core.fanout.is_congested() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, over).await.unwrap();
}

#[tokio::test]
async fn sessions_come_and_go_and_leave_nothing() {
    let mut core = Core::new();
    let (_, _stays) = core.attach(&["#"]).await;
    for _ in 0..200 {
        let (counter, link) = core.attach(&["a", "b/+"]).await;
        core.publish("a", b"x");
        counter.reaches(core.seq).await;
        link.unsubscribe("a").unwrap();
        core.publish("a", b"x");
        core.publish("b/c", b"x");
        counter.reaches(core.seq).await;
        assert_eq!(lock(&counter.got).len(), 2);
        drop(link);
    }
    let filters: usize = core.fanout.hubs.iter().map(|hub| hub.filters()).sum();
    assert_eq!(filters, 1);
}

/// Sessions at one hub get what they ask for, each message once and in order, over topics too,
/// whoever else asks for it.
#[tokio::test]
async fn sessions_that_share_a_link_do_not_disturb_each_other() {
    let mut core = Core::new();
    let (wide, _one) = core.attach(&["a/#"]).await;
    let (_other_hub, _two) = core.attach(&["x"]).await;
    let (both, link) = core.attach(&["a/b", "a/+", "c"]).await;
    let (_other_hub, _three) = core.attach(&["x"]).await;
    let (one, _four) = core.attach(&["a/c"]).await;
    let publish_all = |core: &mut Core| {
        for topic in ["a/b", "a/c", "c", "a/b"] {
            core.publish(topic, b"x");
        }
    };
    publish_all(&mut core);
    assert_eq!(both.takes(4).await, [1, 2, 3, 4]);
    assert_eq!(wide.takes(3).await, [1, 2, 4]);
    assert_eq!(one.takes(1).await, [2]);
    // The filter that brought `a/b` so far goes, and another brings it on.
    link.unsubscribe("a/b").unwrap();
    publish_all(&mut core);
    assert_eq!(both.takes(4).await, [5, 6, 7, 8]);
    link.unsubscribe("a/+").unwrap();
    link.unsubscribe("c").unwrap();
    link.subscribe("a/+").await.unwrap();
    publish_all(&mut core);
    assert_eq!(both.takes(3).await, [9, 10, 12]);
    // Whatever came twice would be here by now.
    core.publish("a/b", b"last");
    assert_eq!(both.takes(1).await, [13]);
    assert_eq!(wide.takes(7).await, [5, 6, 8, 9, 10, 12, 13]);
    assert_eq!(one.takes(2).await, [6, 10]);
}

/// A filter that stayed for another's sake and is asked for again brings everything, also what came
/// through a third one that is gone.
#[tokio::test]
async fn a_filter_that_is_asked_for_again_misses_nothing() {
    let mut core = Core::new();
    let (counter, link) = core.attach(&["a/+", "+/b", "c/b"]).await;
    link.unsubscribe("+/b").unwrap();
    link.unsubscribe("a/+").unwrap();
    link.subscribe("+/b").await.unwrap();
    core.publish("a/b", b"x");
    core.publish("c/b", b"x");
    assert_eq!(counter.takes(2).await, [1, 2]);
}

/// A channel of the type of another one, with this capacity.
fn like<T>(_: &flume::Sender<T>, capacity: usize) -> (flume::Sender<T>, flume::Receiver<T>) {
    flume::bounded(capacity)
}

fn config() -> RouterConfig {
    RouterConfig {
        max_connections: 1,
        max_segment_size: SEGMENT_BYTES,
        max_segment_count: SEGMENTS,
        ..RouterConfig::default()
    }
}

/// The sending end of a link whose Router only listens when it is asked how often it was told;
/// there is room for so many calls.
pub(super) fn unheard(room: usize) -> (LinkTx, impl Fn() -> usize) {
    let (events, told) = like(&Router::new(0, config()).spawn(), room);
    let tx = LinkTx::new(0, events, Arc::default());
    (tx, move || told.drain().count())
}

/// What was handed over while the Router's channel was full is told when there is room again,
/// whether or not more comes.
#[test]
fn the_router_is_told_later_of_what_it_could_not_be_told() {
    let router = Router::new(0, config()).spawn();
    let (_, rx, _) = LinkBuilder::new("ingest", router).build().unwrap();
    let (tx, told) = unheard(1);
    let mut ingest = Ingest {
        tx,
        _rx: rx,
        is_silent: false,
    };
    let publish = |ingest: &mut Ingest, seq| {
        let message = draft("a", b"x").seal(seq, 0);
        ingest.publish(MESSAGES, message).unwrap();
    };
    publish(&mut ingest, 1);
    // The Router came for it because of something else, and has not looked at its channel yet.
    ingest.tx.buffer().clear();
    publish(&mut ingest, 2);
    ingest.tell().unwrap();
    assert_eq!(told(), 1);
    ingest.tell().unwrap();
    assert_eq!(told(), 1);
    // The same with the next message.
    ingest.tx.buffer().clear();
    publish(&mut ingest, 3);
    ingest.tx.buffer().clear();
    publish(&mut ingest, 4);
    told();
    publish(&mut ingest, 5);
    assert_eq!(told(), 1);
    // Once told, it is not told again of what it has not come for.
    publish(&mut ingest, 6);
    ingest.tell().unwrap();
    assert_eq!(told(), 0);
}

/// A sink that goes away while messages are on their way to it ends nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_goes_while_messages_come_takes_nothing_along() {
    let mut core = Core::new();
    let (stays, _link) = core.attach(&["#"]).await;
    for _ in 0..300 {
        // Its owner keeps the link, as sessions do.
        struct Owner(std::sync::OnceLock<Box<dyn Link>>);
        impl Sink for Owner {
            fn deliver(&self, _: &[Message]) {}
        }
        let owner = Arc::new(Owner(std::sync::OnceLock::new()));
        let sink: Arc<dyn Sink> = owner.clone();
        let link = core.fanout.attach(Arc::downgrade(&sink));
        drop(sink);
        link.subscribe("#").await.unwrap();
        assert!(owner.0.set(link).is_ok());
        for _ in 0..10 {
            core.publish("a", b"x");
        }
        drop(owner);
    }
    stays.reaches(core.seq).await;
    assert_eq!(lock(&stays.got).len() as u64, core.seq);
}
