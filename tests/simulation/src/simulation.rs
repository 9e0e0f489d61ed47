//! A run from its seed to its report.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use cap_core::monitor::{Monitor, Query, Row};
use cap_core::storage::{Reason, Side, Status};
use cap_ledger::{Event, Final, Group, Ledger, Report};
use tokio::time::Instant;

use crate::application::Wish;
use crate::fleet::{Fleet, broker_away};
use crate::job::{ATTEMPTS, GROUPS, KEYED, ONCE, name, number_of};
use crate::plan::{LONG_DELAY, Plan, within};
use crate::world::{World, millis};

/// What a run came to.
#[derive(Debug)]
pub struct RowOutcome {
    /// Everything that happened.
    pub ledger: Ledger,
    /// The ledger's judgement.
    pub report: Report,
    /// What is wrong beyond that: a node that does not start or stop, a loop that spins, an answer left lying.
    pub problems: Vec<String>,
}

impl RowOutcome {
    /// Whether nothing at all is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.report.is_clean() && self.problems.is_empty()
    }

    /// Expects nothing to be wrong.
    ///
    /// # Panics
    ///
    /// When something is: with the report, and the command that shows it again.
    #[track_caller]
    pub fn assert_clean(&self, seed: u64) {
        let again = format!("CAP_SIM_SEED={seed} cargo test -p cap-simulation");
        self.report.assert_clean(&again);
        assert!(self.problems.is_empty(), "{:#?}; to see it again: {again}", self.problems);
    }
}

/// Runs the engine as a seed has it, in this thread and on virtual time, until all has come to rest.
///
/// # Errors
///
/// When no runtime can be had.
pub fn run(seed: u64) -> std::io::Result<RowOutcome> {
    // The engine draws its jitter from the thread's generator.
    fastrand::seed(seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    let world = runtime.block_on(simulate(seed));
    let ledger = world.with_ledger(std::mem::take);
    Ok(RowOutcome { report: ledger.judge(), problems: world.problems(), ledger })
}

thread_local! {
    static START: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// How far the run of this thread has come, in milliseconds.
#[must_use]
pub fn elapsed_ms() -> u64 {
    START.get().map_or(0, |start| millis(start.elapsed()) + 1)
}

async fn simulate(seed: u64) -> Arc<World> {
    START.set(Some(Instant::now()));
    let world = Arc::new(World::new(seed, Plan::of(seed)));
    promise(&world);
    let (fleet, deaths) = Fleet::new(Arc::clone(&world));
    let keeper = tokio::spawn(Arc::clone(&fleet).keep(deaths));
    fleet.start_all();
    live(&fleet).await;
    fleet.calm_down();
    // What a consumer holds back, since the store refused it once, is delivered anew.
    broker_away(Arc::clone(&world), Duration::from_millis(100)).await;
    rest(&fleet).await;
    for late in fleet.shut_down_all().await {
        world.problem(format!("in calm, {late}"));
    }
    keeper.abort();
    take_stock(&world).await;
    world
}

/// Says what each group is promised.
fn promise(world: &World) {
    let promised = Group { notices: true, attempts: Some(ATTEMPTS), ..Group::plain() };
    world.with_ledger(|ledger| {
        ledger.group("", promised);
        for group in GROUPS {
            let (once, ordered) = (group == ONCE, group == KEYED && world.plan.orderly);
            ledger.group(group, Group { once, ordered, ..promised });
        }
    });
}

/// Publishes, and has things go wrong, each at its time.
async fn live(fleet: &Arc<Fleet>) {
    let plan = &fleet.world.plan;
    let mut rng = fleet.world.rng();
    let mut next = 0;
    let mut wishes = Vec::new();
    while next < plan.messages as u64 {
        let wish = Wish::random(&mut rng, &mut next, plan.long_delays);
        wishes.push((within(&mut rng, plan.length), rng.usize(0..plan.nodes), wish));
    }
    wishes.sort_by_key(|(at, ..)| *at);
    let (mut wishes, mut blows) = (wishes.into_iter().peekable(), plan.blows.iter().peekable());
    let start = Instant::now();
    loop {
        let wish_at = wishes.peek().map(|(at, ..)| *at);
        let blow_at = blows.peek().map(|(at, _)| *at);
        let Some(at) = [wish_at, blow_at].into_iter().flatten().min() else { break };
        tokio::time::sleep_until(start + at).await;
        if blow_at == Some(at)
            && let Some((_, blow)) = blows.next()
        {
            fleet.strike(*blow);
        } else if let Some((_, node, wish)) = wishes.next() {
            let own = rng.fork();
            fleet.act(node, |app| wish.publish(app, own));
        }
    }
    tokio::time::sleep_until(start + plan.length).await;
}

/// Waits until everything has come to rest, and stays so for a while.
async fn rest(fleet: &Fleet) {
    const LONGEST: Duration = Duration::from_mins(25);
    /// What hangs in calm does so for less than two minutes, and then there are attempts left to be made.
    const LONG_REST: Duration = Duration::from_mins(4);
    let start = Instant::now();
    let mut quiet = 0;
    while quiet < 3 && start.elapsed() < LONGEST {
        tokio::time::sleep(Duration::from_secs(5)).await;
        let rows = all_rows(&fleet.world).await;
        let rests = fleet.is_whole()
            && !fleet.world.is_called()
            && rows.iter().all(|row| state(row) != Final::Unfinished);
        quiet = if rests { quiet + 1 } else { 0 };
    }
    let longest_delay = if fleet.world.plan.long_delays { LONG_DELAY } else { Duration::ZERO };
    if start.elapsed() > LONG_REST + longest_delay {
        fleet.world.problem(format!("it took {:?} to come to rest", start.elapsed()));
    }
}

async fn all_rows(world: &World) -> Vec<Row> {
    let mut rows = Vec::new();
    for side in [Side::Outbox, Side::Inbox] {
        match world.storage.list(&Query::new(side).limit(usize::MAX)).await {
            Ok(some) => rows.extend(some),
            Err(error) => world.problem(error.to_string()),
        }
    }
    rows
}

/// Notes where every message stands at the end.
async fn take_stock(world: &World) {
    for row in all_rows(world).await {
        let state = state(&row);
        let number = number_of(&row.message);
        // Only what the broker said of the message itself may count.
        let refused = number.map_or(0, |number| world.sends_refused(&name(number)));
        if row.side == Side::Outbox && row.attempts > refused {
            let (id, attempts) = (row.id, row.attempts);
            world.problem(format!("outbox row {id} counts {attempts} attempts, {refused} were refused"));
        }
        match number {
            Some(number) => {
                let group = row.group.trim_end_matches(".v1").to_owned();
                world.note(Event::Stands { message: name(number), group, state });
            }
            None if state == Final::Unfinished => {
                world.problem(format!("{} {} is left lying: {:?}", row.name, row.id, row.status));
            }
            None => {}
        }
    }
}

fn state(row: &Row) -> Final {
    let idle = row.owner.is_none() && row.due.is_none();
    match (row.status, row.reason) {
        (Status::Succeeded, _) if idle => Final::Succeeded,
        (Status::Failed, Some(Reason::Cancelled)) if idle => Final::CalledOff,
        (Status::Failed, Some(Reason::Exhausted)) if idle => Final::Exhausted,
        (Status::Failed, _) if idle => Final::Failed,
        _ => Final::Unfinished,
    }
}
