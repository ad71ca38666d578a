//! A priority level at work: its queues behind a lock, those who wait, and how much was asked of it.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};

use super::{
    config::Work,
    queues::{Arrival, Discipline, Queues},
    share::Demand,
};

/// How long a request waits at most: a quarter of a request's time, as upstream.
const PATIENCE: Duration = Duration::from_secs(15);

/// A level.
pub(super) struct Level {
    pub(super) name: String,
    /// `None`: everybody is served at once.
    room: Option<Mutex<Room>>,
    born: Instant,
    pub(super) totals: Totals,
}

/// What has become of requests since the start.
#[derive(Default)]
pub(super) struct Totals {
    pub(super) executing: AtomicUsize,
    pub(super) dispatched: AtomicU64,
    pub(super) rejected: AtomicU64,
    pub(super) timed_out: AtomicU64,
    pub(super) cancelled: AtomicU64,
}

pub(super) struct Room {
    pub(super) queues: Queues<Ticket>,
    numbers: u64,
    meter: Meter,
}

/// One that waits.
#[derive(Debug)]
pub(super) struct Ticket {
    number: u64,
    call: Option<oneshot::Sender<()>>,
    pub(super) schema: Arc<str>,
    pub(super) flow: Box<str>,
    pub(super) since: Instant,
}

impl PartialEq for Ticket {
    fn eq(&self, other: &Ticket) -> bool {
        self.number == other.number
    }
}

/// A seat, or several, until it is dropped.
pub(crate) struct Seat {
    level: Arc<Level>,
    queue: usize,
    seats: u32,
    since: Instant,
    work: Arc<Work>,
}

impl Level {
    /// A level that serves everybody at once.
    pub(super) fn exempt(name: &str) -> Level {
        Level { name: name.to_string(), room: None, born: Instant::now(), totals: Totals::default() }
    }

    /// A level with so many seats.
    pub(super) fn limited(name: &str, discipline: Discipline, seats: u32) -> Level {
        let room = Room { queues: Queues::new(discipline, seats), numbers: 0, meter: Meter::default() };
        Level { room: Some(Mutex::new(room)), ..Level::exempt(name) }
    }

    pub(super) fn is_exempt(&self) -> bool {
        self.room.is_none()
    }

    /// Serves otherwise from now on.
    pub(super) fn reconfigure(&self, discipline: Discipline) {
        if let Some(mut room) = self.room() {
            room.queues.reconfigure(discipline);
        }
    }

    /// Has so many seats from now on.
    pub(super) fn limit_to(&self, seats: u32) {
        let now = self.now();
        if let Some(mut room) = self.room() {
            room.queues.limit_to(now, seats);
            room.call(now);
        }
    }

    /// What was asked for since the last call.
    pub(super) fn demand(&self) -> Demand {
        let now = self.now();
        self.room().map(|mut room| room.measure(now)).unwrap_or_default()
    }

    /// Its queues, to look at.
    pub(super) fn look<R>(&self, at: impl FnOnce(&Queues<Ticket>) -> R) -> Option<R> {
        self.room().map(|room| at(&room.queues))
    }

    /// A seat for a request, at once or after a while; else why not.
    pub(super) async fn seat(
        self: &Arc<Level>,
        work: &Arc<Work>,
        flow: &str,
        seats: u32,
    ) -> Result<Seat, &'static str> {
        let (arrival, waiting) = match self.arrive(work, flow, seats) {
            Ok(arrived) => arrived,
            Err(reason) => {
                self.totals.rejected.fetch_add(1, Ordering::Relaxed);
                return Err(reason);
            }
        };
        if let Some((number, call)) = waiting {
            let place = Place { level: self, queue: arrival, number, seats, work, is_called: false };
            place.wait(call).await?;
        }
        work.metrics.dispatched.inc();
        work.metrics.executing.inc();
        work.metrics.seats.add(i64::from(seats));
        self.totals.dispatched.fetch_add(1, Ordering::Relaxed);
        self.totals.executing.fetch_add(1, Ordering::Relaxed);
        Ok(Seat { level: self.clone(), queue: arrival, seats, since: Instant::now(), work: work.clone() })
    }

    /// The queue of a request, and what to wait for if it has to.
    fn arrive(
        &self,
        work: &Arc<Work>,
        flow: &str,
        seats: u32,
    ) -> Result<(usize, Option<(u64, oneshot::Receiver<()>)>), &'static str> {
        let now = self.now();
        let Some(mut room) = self.room() else { return Ok((0, None)) };
        room.advance(now);
        room.numbers += 1;
        let number = room.numbers;
        let mut waiting = None;
        let ticket = || {
            let (call, called) = oneshot::channel();
            waiting = Some((number, called));
            let (schema, since) = (work.name.clone(), Instant::now());
            Ticket { number, call: Some(call), schema, flow: flow.into(), since }
        };
        let arrival = room.queues.arrive(now, work.hash(flow), seats, ticket);
        room.note();
        match arrival {
            Arrival::Served(queue) | Arrival::Waits(queue) => Ok((queue, waiting)),
            Arrival::Refused(reason) => Err(reason),
        }
    }

    /// A request has ended, or never began.
    fn finish(&self, queue: usize, seats: u32, took: Option<Duration>) {
        let now = self.now();
        let Some(mut room) = self.room() else { return };
        room.advance(now);
        room.queues.finish(now, queue, seats, took);
        room.call(now);
    }

    fn now(&self) -> Duration {
        self.born.elapsed()
    }

    fn room(&self) -> Option<MutexGuard<'_, Room>> {
        self.room.as_ref().map(|room| room.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Room {
    /// Calls those for whom there is a seat now. Who has just gone gives it back when it notices.
    fn call(&mut self, now: Duration) {
        while let Some((_, mut waiting)) = self.queues.next(now) {
            // Whoever does not hear it any more finds itself called when it leaves.
            waiting.ticket.call.take().map(|call| call.send(()).is_ok());
        }
        self.note();
    }

    /// What was asked for until now goes into the account.
    fn advance(&mut self, now: Duration) {
        let demand = self.queues.demand();
        self.meter.advance(now, demand);
    }

    fn note(&mut self) {
        let demand = self.queues.demand();
        self.meter.note(demand);
    }

    fn measure(&mut self, now: Duration) -> Demand {
        self.advance(now);
        self.meter.read(now, self.queues.demand())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.work.metrics.executing.dec();
        self.work.metrics.seats.sub(i64::from(self.seats));
        self.level.totals.executing.fetch_sub(1, Ordering::Relaxed);
        self.level.finish(self.queue, self.seats, Some(self.since.elapsed()));
    }
}

/// A place in a queue. Who leaves it, for whatever reason, is not called any more.
struct Place<'a> {
    level: &'a Level,
    queue: usize,
    number: u64,
    seats: u32,
    work: &'a Work,
    is_called: bool,
}

impl Place<'_> {
    async fn wait(mut self, call: oneshot::Receiver<()>) -> Result<(), &'static str> {
        let since = Instant::now();
        self.work.metrics.waiting.inc();
        let called = timeout(PATIENCE, call).await;
        self.is_called = matches!(called, Ok(Ok(())));
        let waits = if self.is_called { &self.work.metrics.waits } else { &self.work.metrics.vain_waits };
        waits.observe(since.elapsed().as_secs_f64());
        match self.is_called {
            true => Ok(()),
            false => {
                self.level.totals.timed_out.fetch_add(1, Ordering::Relaxed);
                Err("time-out")
            }
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.work.metrics.waiting.dec();
        if self.is_called {
            return;
        }
        let now = self.level.now();
        let Some(mut room) = self.level.room() else { return };
        let ticket = Ticket {
            number: self.number,
            call: None,
            schema: self.work.name.clone(),
            flow: Box::default(),
            since: Instant::now(),
        };
        room.advance(now);
        if !room.queues.withdraw(now, self.queue, &ticket) {
            // It was called, and does not want the seat any more.
            room.queues.finish(now, self.queue, self.seats, None);
        }
        self.level.totals.cancelled.fetch_add(1, Ordering::Relaxed);
        room.call(now);
    }
}

/// Adds up how many seats are asked for over time.
#[derive(Default)]
struct Meter {
    start: Duration,
    last: Duration,
    sum: f64,
    squares: f64,
    highest: u32,
}

impl Meter {
    /// So many were asked for since the last change.
    fn advance(&mut self, now: Duration, demand: u32) {
        let passed = now.saturating_sub(self.last).as_secs_f64();
        self.last = self.last.max(now);
        self.sum += passed * f64::from(demand);
        self.squares += passed * f64::from(demand) * f64::from(demand);
    }

    fn note(&mut self, demand: u32) {
        self.highest = self.highest.max(demand);
    }

    /// The period so far; the next begins.
    fn read(&mut self, now: Duration, demand: u32) -> Demand {
        let seconds = now.saturating_sub(self.start).as_secs_f64().max(1e-6);
        let average = self.sum / seconds;
        let deviation = (self.squares / seconds - average * average).max(0.0).sqrt();
        let read = Demand { average, deviation, highest: f64::from(self.highest) };
        *self = Meter { start: now, last: now, highest: demand, ..Meter::default() };
        read
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work() -> Arc<Work> {
        Arc::new(Work::named("test-level", "test-schema"))
    }

    fn level(seats: u32) -> Arc<Level> {
        let discipline = Discipline::Queue { queues: 4, hand: 2, length: 10 };
        Arc::new(Level::limited("test-level", discipline, seats))
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_served_when_a_seat_is_given_back() {
        let (level, work) = (level(1), work());
        let first = level.seat(&work, "a", 1).await.unwrap_or_else(|why| panic!("{why}"));
        let mut second = Box::pin(level.seat(&work, "b", 1));
        assert!(futures::poll!(&mut second).is_pending());
        drop(first);
        assert!(second.await.is_ok());
        assert_eq!(level.look(Queues::counts), Some((0, 0)));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_too_long_is_sent_away_and_leaves_nothing_behind() {
        let (level, work) = (level(1), work());
        let seat = level.seat(&work, "a", 1).await.unwrap_or_else(|why| panic!("{why}"));
        assert_eq!(level.seat(&work, "b", 1).await.err(), Some("time-out"));
        assert_eq!(level.look(Queues::counts), Some((1, 0)));
        drop(seat);
        assert_eq!(level.look(Queues::counts), Some((0, 0)));
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_the_queue_when_it_is_called_gives_the_seat_to_the_next() {
        let (level, work) = (level(1), work());
        let first = level.seat(&work, "a", 1).await.unwrap_or_else(|why| panic!("{why}"));
        let mut second = Box::pin(level.seat(&work, "b", 1));
        assert!(futures::poll!(&mut second).is_pending());
        let mut third = Box::pin(level.seat(&work, "b", 1));
        assert!(futures::poll!(&mut third).is_pending());
        // The second is called, but never looks.
        drop(first);
        drop(second);
        assert!(third.await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn more_seats_are_handed_out_at_once() {
        let (level, work) = (level(1), work());
        let _first = level.seat(&work, "a", 1).await.unwrap_or_else(|why| panic!("{why}"));
        let mut second = Box::pin(level.seat(&work, "b", 1));
        assert!(futures::poll!(&mut second).is_pending());
        level.limit_to(2);
        assert!(second.await.is_ok());
    }

    #[test]
    fn a_meter_knows_average_and_highest() {
        let mut meter = Meter::default();
        meter.advance(Duration::from_secs(1), 0);
        meter.note(4);
        meter.advance(Duration::from_secs(2), 4);
        let demand = meter.read(Duration::from_secs(2), 0);
        assert_eq!((demand.average, demand.deviation, demand.highest), (2.0, 2.0, 4.0));
    }
}
