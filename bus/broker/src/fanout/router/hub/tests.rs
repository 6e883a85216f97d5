use std::task::{Context, Waker};

use bus::admin::Admin;
use bus::shutdown::Shutdown;

use super::super::RouterFanout;
use super::super::tests::unheard;
use super::*;
use crate::metrics::Metrics;

struct Nobody;

impl Sink for Nobody {
    fn deliver(&self, _: &[Message]) {}
}

/// The Router may sort messages before it hears of a hub although they came after its question.
#[tokio::test]
async fn what_the_router_had_before_it_knew_of_a_hub_holds_nobody_up() {
    let metrics = Arc::new(Metrics::new(&Admin::default()));
    let fanout = RouterFanout::with_hubs(1, metrics, &Shutdown::new()).unwrap();
    let pace = &fanout.shared.pace;
    let (tx, _told) = unheard(10);
    let hub = Hub::new(0, tx, fanout.shared.clone());
    let sink: Arc<dyn Sink> = Arc::new(Nobody);
    let link = hub.attach(Arc::downgrade(&sink));

    let mut asked = pin!(link.subscribe("f"));
    let once = asked.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(once.is_pending());
    pace.published(1 << 30);
    assert!(pace.is_exceeded());
    hub.table().granted(1);
    asked.await.unwrap();
    assert!(!pace.is_exceeded());
}
