//! Exactly as many run as may, the rest wait in order or are refused, and a service that is full bars no other.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::BTreeMap;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use futures::FutureExt;
use proptest::prelude::*;

use super::*;

type Entering<'a> = Pin<Box<dyn Future<Output = Result<Place, Full>> + 'a>>;

/// A request that waits.
fn waits(service: &ServicePlaces) -> Entering<'_> {
    let mut entering: Entering<'_> = Box::pin(service.enter(Standing::Request));
    assert!(poll(&mut entering).is_none());
    entering
}

fn poll(entering: &mut Entering<'_>) -> Option<Result<Place, Full>> {
    match entering.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(entered) => Some(entered),
        Poll::Pending => None,
    }
}

#[test]
fn a_service_that_is_full_bars_no_other_and_takes_no_place_of_the_account_while_it_waits() {
    let account = Places::new(2, 8);
    let (full, other) = (account.service(1), account.service(4));
    let first = full.try_enter().unwrap();
    let mut second = waits(&full);
    let beside = other.try_enter().expect("the account has a place left");
    assert!(other.try_enter().is_none());
    let mut behind = waits(&other);
    // Now a place of the account comes free, and the older of the two cannot use it.
    drop(beside);
    assert!(poll(&mut second).is_none());
    let beside = poll(&mut behind).unwrap().unwrap();
    drop(first);
    let second = poll(&mut second).unwrap().unwrap();
    drop((beside, second, behind));
    assert_eq!(account.lock().taken, 0);
}

#[test]
fn a_flood_of_one_service_is_refused_and_events_are_not() {
    let account = Places::new(8, 2);
    let (loud, quiet) = (account.service(1), account.service(1));
    let held = (loud.try_enter().unwrap(), quiet.try_enter().unwrap());
    let (mut first, mut second) = (waits(&loud), waits(&loud));
    assert!(loud.enter(Standing::Request).now_or_never().unwrap().is_err());
    let mut event: Entering<'_> = Box::pin(loud.enter(Standing::Event));
    assert!(poll(&mut event).is_none());
    let mut third = waits(&quiet);
    assert!(poll(&mut second).unwrap().is_err(), "it has made room");
    drop(held);
    let (first, _third) = (poll(&mut first).unwrap().unwrap(), poll(&mut third).unwrap().unwrap());
    assert!(poll(&mut event).is_none());
    drop(first);
    assert!(poll(&mut event).unwrap().is_ok());
}

#[test]
fn more_places_are_given_at_once_and_fewer_as_they_come_back() {
    let account = Places::new(8, 8);
    let service = account.service(1);
    let mut running = vec![service.try_enter().unwrap()];
    let mut waiting: Vec<_> = (0..4).map(|_| waits(&service)).collect();
    service.set_max(3);
    running.extend(waiting.drain(..2).map(|mut entering| poll(&mut entering).unwrap().unwrap()));
    assert!(poll(&mut waiting[0]).is_none());
    service.set_max(1);
    running.truncate(1);
    assert!(poll(&mut waiting[0]).is_none());
    running.clear();
    running.push(poll(&mut waiting[0]).unwrap().unwrap());
    assert!(poll(&mut waiting[1]).is_none());
    // What is given back after its service is gone still counts for the account.
    drop(waiting);
    drop(service);
    assert_eq!(account.lock().taken, 1);
    running.clear();
    let left = account.lock();
    assert_eq!((left.taken, left.services.len()), (0, 0));
}

#[derive(Clone, Debug)]
enum Step {
    Enter(usize),
    GiveUp(usize),
    Leave(usize),
    SetMax(usize, u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0_usize..3).prop_map(Step::Enter),
        1 => any::<usize>().prop_map(Step::GiveUp),
        3 => any::<usize>().prop_map(Step::Leave),
        1 => (0_usize..3, 1_u64..5).prop_map(|(service, max)| Step::SetMax(service, max)),
    ]
}

proptest! {
    #[test]
    fn nobody_waits_who_could_enter_and_no_more_enter_than_may(steps in proptest::collection::vec(step(), 1..200)) {
        const MAX: u64 = 6;
        let account = Places::new(MAX as u32, 1_000);
        let services: Vec<_> = (0..3).map(|_| account.service(2)).collect();
        let mut maxima = [2_u64; 3];
        let mut waiting: BTreeMap<usize, (usize, Entering<'_>)> = BTreeMap::new();
        let mut running: Vec<(usize, Place)> = Vec::new();
        let mut next = 0;
        for step in steps {
            match step {
                Step::Enter(service) => {
                    waiting.insert(next, (service, Box::pin(services[service].enter(Standing::Request))));
                    next += 1;
                }
                Step::GiveUp(at) if !waiting.is_empty() => {
                    let key = *waiting.keys().nth(at % waiting.len()).unwrap();
                    waiting.remove(&key);
                }
                Step::Leave(at) if !running.is_empty() => drop(running.swap_remove(at % running.len())),
                Step::SetMax(service, max) => {
                    services[service].set_max(max);
                    maxima[service] = max;
                }
                _ => {}
            }
            let before: Vec<_> = waiting.iter().map(|(key, (service, _))| (*key, *service)).collect();
            let entered: Vec<_> = waiting.iter_mut().filter_map(|(key, (_, entering))| poll(entering).map(|place| (*key, place.unwrap()))).collect();
            for (key, place) in entered {
                let (service, _) = waiting.remove(&key).unwrap();
                prop_assert!(!before.iter().any(|(other, of)| *of == service && *other < key && waiting.contains_key(other)), "in order");
                running.push((service, place));
            }
            let of = |service: usize| running.iter().filter(|(of, _)| *of == service).count() as u64;
            prop_assert!(running.len() as u64 <= MAX);
            for (service, _) in waiting.values() {
                prop_assert!(of(*service) >= maxima[*service] || running.len() as u64 == MAX);
            }
            prop_assert_eq!(account.lock().taken, running.len() as u64);
        }
    }
}
