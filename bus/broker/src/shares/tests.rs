use std::sync::Mutex;

use super::*;
use crate::message::{Draft, Parts};
use crate::wire::RetainHandling;

struct Worker(Mutex<Readiness>);

impl Member for Worker {
    fn readiness(&self) -> Readiness {
        *self.0.lock().unwrap()
    }

    fn take(&self, _: Message) {}
}

fn message(qos: Qos) -> Message {
    Draft::new(&Parts {
        topic: "a/b",
        payload: b"x",
        qos,
        retain: false,
        origin: 0,
        expires: None,
        properties: &[],
    })
    .seal(1, 0)
}

fn request(filter: &str) -> FilterRequest {
    FilterRequest {
        filter: filter.to_owned(),
        qos: Qos::ExactlyOnce,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::Always,
    }
}

/// A group of sessions numbered from 1.
fn group(readiness: &[Readiness]) -> (Shares, Vec<Arc<Worker>>) {
    let mut shares = Shares::default();
    let mut workers = Vec::new();
    for (number, &readiness) in (1..).zip(readiness) {
        workers.push(Arc::new(Worker(Mutex::new(readiness))));
        join(
            &mut shares,
            "$share/g/a/+",
            number,
            &workers[workers.len() - 1],
        )
        .unwrap();
    }
    (shares, workers)
}

fn join(shares: &mut Shares, share: &str, number: u64, worker: &Arc<Worker>) -> Result<(), Full> {
    let member: Arc<dyn Member> = worker.clone();
    let member = Arc::downgrade(&member);
    let joining = Joining {
        number,
        is_kept: number.is_multiple_of(2),
        member,
    };
    shares.join(&request(share), joining)
}

fn chosen(shares: &Shares, qos: Qos) -> Option<u64> {
    let (chosen, _) = shares.choose(&message(qos));
    chosen.first().map(|chosen| chosen.number)
}

#[test]
fn messages_go_round() {
    let (mut shares, workers) = group(&[Readiness::Idle; 3]);
    let mut times = [0; 4];
    for _ in 0..300 {
        times[usize::try_from(chosen(&shares, Qos::AtMostOnce).unwrap()).unwrap()] += 1;
    }
    assert_eq!(times, [0, 100, 100, 100]);
    shares.leave("$share/g/a/+", 2);
    assert!((0..10).all(|_| chosen(&shares, Qos::AtMostOnce) != Some(2)));
    shares.leave("$share/g/a/+", 1);
    shares.leave("$share/g/a/+", 3);
    assert!(shares.0.is_empty());
    drop(workers);
}

#[test]
fn the_readiest_is_chosen() {
    use Readiness::{Absent, Busy, Full, Idle};
    let check = |readiness: &[Readiness], qos, expected| {
        let (shares, _workers) = group(readiness);
        for _ in 0..5 {
            assert_eq!(chosen(&shares, qos), expected, "{readiness:?} {qos:?}");
        }
    };
    for qos in [Qos::AtMostOnce, Qos::AtLeastOnce] {
        check(&[Full, Absent, Busy, Idle], qos, Some(4));
        check(&[Full, Absent, Busy, Absent], qos, Some(3));
    }
    check(&[Full, Absent], Qos::AtLeastOnce, Some(2));
    check(&[Full, Full], Qos::AtMostOnce, None);
    check(&[Absent, Absent], Qos::AtMostOnce, None);
    let (shares, _workers) = group(&[Full, Absent]);
    assert_eq!(shares.choose(&message(Qos::AtMostOnce)).1, 1);
    assert!(shares.choose(&message(Qos::AtLeastOnce)).0[0].is_stored);
    let (shares, _workers) = group(&[Full]);
    assert_eq!(chosen(&shares, Qos::AtLeastOnce), Some(1));
}

#[test]
fn every_group_gets_its_own_and_one_session_counts_once() {
    let (mut shares, workers) = group(&[Readiness::Idle; 2]);
    join(&mut shares, "$share/g/a/+", 1, &workers[0]).unwrap();
    join(&mut shares, "$share/h/a/+", 1, &workers[0]).unwrap();
    join(&mut shares, "$share/g/#", 1, &workers[0]).unwrap();
    let (chosen, _) = shares.choose(&message(Qos::AtMostOnce));
    let mut groups: Vec<&str> = chosen.iter().map(|chosen| &*chosen.share).collect();
    groups.sort_unstable();
    assert_eq!(groups, ["$share/g/#", "$share/g/a/+", "$share/h/a/+"]);
}

#[test]
fn what_one_lets_go_of_goes_to_another_that_has_room() {
    let (shares, workers) = group(&[Readiness::Idle, Readiness::Absent, Readiness::Full]);
    let copy = message(Qos::AtLeastOnce).copy_for("$share/g/a/+", 2);
    let other = |number| {
        shares
            .choose_other(&copy, number)
            .map(|chosen| chosen.number)
    };
    assert_eq!((other(1), other(2)), (Some(2), Some(1)));
    *workers[1].0.lock().unwrap() = Readiness::Full;
    assert_eq!(other(1), None);
    let gone = message(Qos::AtLeastOnce).copy_for("$share/gone/a/+", 2);
    assert!(shares.choose_other(&gone, 1).is_none());
}

#[test]
fn a_group_is_bounded_and_forgets_the_dead() {
    let (mut shares, workers) = group(&[Readiness::Idle; MAX_MEMBERS]);
    let one = workers[0].clone();
    assert_eq!(join(&mut shares, "$share/g/a/+", 1, &one), Ok(()));
    assert_eq!(join(&mut shares, "$share/g/a/+", 0, &one), Err(Full));
    drop(workers);
    assert_eq!(join(&mut shares, "$share/g/a/+", 0, &one), Ok(()));
    assert_eq!(chosen(&shares, Qos::AtMostOnce).map(|n| n < 2), Some(true));
}
