//! Random work of two services under random caps, with midnights, ends and deaths, against a model that adds up what was granted.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    /// A service reserves so much and uses so many percent of it.
    Work {
        service: i64,
        amount: u64,
        percent: u64,
    },
    Charge {
        service: i64,
        amount: u64,
    },
    Cap {
        service: bool,
        month: bool,
        value: u64,
    },
    Uncap {
        service: bool,
        month: bool,
    },
    Hours(u8),
    Again {
        clean: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (1..3_i64, 1..40_u64, 0..=100_u64).prop_map(|(service, amount, percent)| Step::Work { service, amount, percent }),
        2 => (1..3_i64, 1..20_u64).prop_map(|(service, amount)| Step::Charge { service, amount }),
        2 => (any::<bool>(), any::<bool>(), 0..400_u64).prop_map(|(service, month, value)| Step::Cap { service, month, value }),
        1 => (any::<bool>(), any::<bool>()).prop_map(|(service, month)| Step::Uncap { service, month }),
        1 => (1..30_u8).prop_map(Step::Hours),
        1 => any::<bool>().prop_map(|clean| Step::Again { clean }),
    ]
}

fn key(service: bool, month: bool) -> CapKey {
    let period = if month { Period::Month } else { Period::Day };
    CapKey { account: ACCOUNT, service: service.then_some(1), meter: Meter::KvReads, period }
}

/// What was used: by whom, on which day.
type Used = Vec<(i64, u64, u64)>;

fn sum(used: &Used, service: Option<i64>, period: Period, now: u64) -> u64 {
    let in_window = |ms: u64| Window::at(period, ms) == Window::at(period, now);
    used.iter().filter(|(by, ms, _)| service.is_none_or(|service| service == *by) && in_window(*ms)).map(|(.., amount)| amount).sum()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn caps_hold_and_usage_is_right(steps in prop::collection::vec(step(), 1..80)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(run(steps));
    }
}

async fn run(steps: Vec<Step>) {
    let mut fixture = Fixture::new().await;
    let (mut used, mut caps) = (Used::new(), HashMap::new());
    let mut died = false;
    for step in steps {
        let now = fixture.clock.now_unix_ms();
        match step {
            Step::Work { service, amount, percent } => {
                let room = caps.iter().all(|(key, value): (&CapKey, &u64)| {
                    let applies = key.service.is_none_or(|only| only == service);
                    !applies || sum(&used, key.service, key.period, now) + amount <= *value
                });
                match fixture.meters.service(ACCOUNT, service).reserve(Meter::KvReads, amount).await {
                    Ok(reservation) => {
                        assert!(room, "{amount} were granted beyond a cap");
                        let amount = amount * percent / 100;
                        reservation.settle(amount);
                        used.push((service, now, amount));
                    }
                    // After a death less is granted than there would be room for.
                    Err(error) => assert!(!room || died, "{error}, and there was room for {amount}"),
                }
            }
            Step::Charge { service, amount } => {
                fixture.meters.service(ACCOUNT, service).charge(Meter::KvReads, amount);
                used.push((service, now, amount));
            }
            Step::Cap { service, month, value } => {
                fixture.cap(key(service, month), value).await;
                caps.insert(key(service, month), value);
            }
            Step::Uncap { service, month } => {
                let was = fixture.meters.delete_cap(key(service, month)).await.unwrap();
                assert_eq!(was, caps.remove(&key(service, month)).is_some());
            }
            Step::Hours(hours) => drop(fixture.clock.advance(u32::from(hours) * HOUR)),
            Step::Again { clean } => {
                fixture.meters.flush().await.unwrap();
                fixture = fixture.again(clean).await;
                died |= !clean;
            }
        }
        let now = fixture.clock.now_unix_ms();
        for (service, period) in [(None, Period::Day), (None, Period::Month), (Some(1), Period::Day), (Some(2), Period::Month)] {
            let found = fixture.meters.usage(ACCOUNT, service).of(Meter::KvReads, period);
            assert_eq!(found, sum(&used, service, period, now), "of {service:?} in a {}", period.as_str());
        }
    }
}
