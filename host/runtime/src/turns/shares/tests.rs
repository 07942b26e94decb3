//! Who is served in which order, and how much of what there is.

use proptest::prelude::*;

use super::*;

type Line = Shares<u32, Shares<u32, VecDeque<u32>>>;

fn put(line: &mut Line, account: u32, service: u32, job: u32) {
    line.put(&account, |services| services.put(&service, |jobs| jobs.push_back(job)));
}

fn had(line: &mut Line, account: u32, service: u32, much: u64) {
    line.had(&account, much, |services| services.had(&service, much, |_| ()));
}

/// Serves so often; each job is one of `account * 10 + service`, has so much, and comes back.
fn serve(line: &mut Line, times: usize, much: u64) -> Vec<u32> {
    let one = |_| {
        let job = line.take().unwrap();
        put(line, job / 10, job % 10, job);
        had(line, job / 10, job % 10, much);
        job
    };
    (0..times).map(one).collect()
}

#[test]
fn accounts_take_turns_and_so_do_their_services() {
    let mut line = Line::default();
    for _ in 0..500 {
        put(&mut line, 1, 1, 11);
    }
    put(&mut line, 1, 2, 12);
    put(&mut line, 2, 1, 21);
    let served = serve(&mut line, 400, 1_000);
    let of = |job: u32| served.iter().filter(|served| **served == job).count();
    assert_eq!((of(11), of(12), of(21)), (100, 100, 200));
    assert!(served.chunks(2).all(|pair| pair.contains(&21)), "{served:?}");
}

#[test]
fn who_leaves_for_a_moment_gains_nothing_and_who_is_new_owes_nothing() {
    let mut line = Line::default();
    put(&mut line, 1, 1, 11);
    serve(&mut line, 100, 1_000);
    put(&mut line, 2, 1, 21);
    // The second leaves after each of its turns, and comes back at once.
    let mut turns = [0, 0];
    for _ in 0..200 {
        let job = line.take().unwrap();
        let account = job / 10;
        if account == 1 {
            put(&mut line, 1, 1, job);
            had(&mut line, 1, 1, 1_000);
        } else {
            had(&mut line, 2, 1, 1_000);
            put(&mut line, 2, 1, job);
        }
        turns[account as usize - 1] += 1;
    }
    assert_eq!(turns, [100, 100]);
}

#[test]
fn what_nobody_waits_for_is_forgotten() {
    let mut line = Line::default();
    for account in 0..1_000 {
        put(&mut line, account, 1, account * 10 + 1);
        line.take().unwrap();
        had(&mut line, account, 1, u64::from(account));
    }
    assert!(line.is_empty());
    for _ in 0..3 {
        put(&mut line, 5_000, 1, 50_001);
        line.take().unwrap();
        had(&mut line, 5_000, 1, 10_000);
    }
    assert!(line.by_key.len() <= 2, "{}", line.by_key.len());
    assert_eq!(line.resting.len(), line.by_key.len());
}

proptest! {
    /// Of two that wait all the time, neither gets ahead of the other by more than the longest turn, whatever a third does.
    #[test]
    fn nobody_who_waits_falls_behind(turns in prop::collection::vec((1_u64..2_000, any::<bool>()), 1..300)) {
        let mut line: Shares<u32, VecDeque<u32>> = Shares::default();
        for key in 0..3 {
            line.put(&key, |jobs| jobs.push_back(key));
        }
        let mut total = [0_i64; 3];
        let mut third_is_away = false;
        for (much, third_leaves) in turns {
            let key = line.take().unwrap();
            if key != 2 || !third_leaves {
                line.put(&key, |jobs| jobs.push_back(key));
            } else {
                third_is_away = true;
            }
            line.had(&key, much, |_| ());
            total[key as usize] += much as i64;
            if third_is_away && key != 2 {
                third_is_away = false;
                line.put(&2, |jobs| jobs.push_back(2));
            }
            prop_assert!((total[0] - total[1]).abs() <= 2_000, "{:?}", total);
            prop_assert!(total[2] - total[0].max(total[1]) <= 4_000, "{:?}", total);
        }
    }
}
