//! The fair queues of one priority level: who is served now, who waits, who is sent away. Pure.
//!
//! Each queue has a virtual time that moves on by the work it has been given. Whoever is furthest behind is next, as
//! if all queues were served at once, bit by bit. Work is seats times seconds; how long a request will take is a
//! guess until it has ended.

use std::{collections::VecDeque, time::Duration};

use super::deal;

/// How long a request is thought to take, as upstream guesses.
const GUESS: f64 = 0.003;

/// How a level serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Discipline {
    /// What finds no seats is sent away.
    Reject,
    /// It waits in one of so many queues.
    Queue { queues: usize, hand: usize, length: usize },
}

/// What happens to a request that comes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It is served, accounted to this queue.
    Served(usize),
    /// It waits in this queue.
    Waits(usize),
    /// It is sent away.
    Refused(&'static str),
}

/// A request that waits, known to the caller as `T`.
#[derive(Debug)]
pub(super) struct Waiting<T> {
    pub(super) ticket: T,
    pub(super) seats: u32,
}

#[derive(Debug)]
struct Queue<T> {
    waiting: VecDeque<Waiting<T>>,
    waiting_seats: u32,
    executing: usize,
    seats_in_use: u32,
    /// Where the queue's next request begins, in virtual time.
    virtual_start: f64,
}

/// The queues of a level.
#[derive(Debug)]
pub(super) struct Queues<T> {
    discipline: Discipline,
    /// How many seats may be in use.
    limit: u32,
    /// At least one: what is not queued is accounted to the first.
    queues: Vec<Queue<T>>,
    seats_in_use: u32,
    executing: usize,
    waiting: usize,
    waiting_seats: u32,
    /// How many queues have anything to do.
    active: usize,
    virtual_now: f64,
    now: Duration,
    /// Which queue was served last.
    last: usize,
}

impl<T> Queue<T> {
    fn new() -> Queue<T> {
        let waiting = VecDeque::new();
        Queue { waiting, waiting_seats: 0, executing: 0, seats_in_use: 0, virtual_start: 0.0 }
    }

    fn is_active(&self) -> bool {
        self.executing > 0 || !self.waiting.is_empty()
    }

    /// How much it has before it.
    fn backlog(&self) -> u32 {
        self.waiting_seats + self.seats_in_use
    }
}

/// What can be seen of one queue.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Glance {
    pub(super) waiting: usize,
    pub(super) waiting_seats: u32,
    pub(super) executing: usize,
    pub(super) seats_in_use: u32,
    pub(super) virtual_start: f64,
}

impl<T: PartialEq> Queues<T> {
    pub(super) fn new(discipline: Discipline, limit: u32) -> Queues<T> {
        let mut queues = Queues {
            discipline,
            limit,
            queues: Vec::new(),
            seats_in_use: 0,
            executing: 0,
            waiting: 0,
            waiting_seats: 0,
            active: 0,
            virtual_now: 0.0,
            now: Duration::ZERO,
            last: 0,
        };
        queues.reconfigure(discipline);
        queues
    }

    /// Serves otherwise from now on. Queues that are too many are used no more, but served until they are empty.
    pub(super) fn reconfigure(&mut self, discipline: Discipline) {
        self.discipline = discipline;
        let wanted = match discipline {
            Discipline::Reject => 1,
            Discipline::Queue { queues, .. } => queues.max(1),
        };
        while self.queues.len() > wanted && self.queues.last().is_some_and(|queue| !queue.is_active()) {
            self.queues.pop();
        }
        while self.queues.len() < wanted {
            self.queues.push(Queue::new());
        }
        self.last = self.last.min(self.queues.len() - 1);
    }

    /// Seats in use and asked for.
    pub(super) fn demand(&self) -> u32 {
        self.seats_in_use + self.waiting_seats
    }

    /// How many are being served, and how many wait.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.executing, self.waiting)
    }

    /// What each queue looks like.
    pub(super) fn glances(&self) -> impl Iterator<Item = Glance> {
        self.queues.iter().map(|queue| Glance {
            waiting: queue.waiting.len(),
            waiting_seats: queue.waiting_seats,
            executing: queue.executing,
            seats_in_use: queue.seats_in_use,
            virtual_start: queue.virtual_start,
        })
    }

    /// The requests that wait in one queue, the next first.
    pub(super) fn waiting_in(&self, queue: usize) -> impl Iterator<Item = &Waiting<T>> {
        self.queues[queue].waiting.iter()
    }

    /// A request of a flow with this hash comes.
    pub(super) fn arrive(
        &mut self,
        now: Duration,
        hash: u64,
        seats: u32,
        ticket: impl FnOnce() -> T,
    ) -> Arrival {
        self.advance(now);
        let (index, length) = match self.discipline {
            Discipline::Reject if self.fits(seats) => {
                self.serve(0, seats);
                return Arrival::Served(0);
            }
            Discipline::Reject => return Arrival::Refused("concurrency-limit"),
            Discipline::Queue { queues, hand, length } => (self.choose(hash, queues, hand), length),
        };
        if self.waiting == 0 && self.fits(seats) {
            self.serve(index, seats);
            return Arrival::Served(index);
        }
        let queue = &mut self.queues[index];
        if queue.waiting.len() >= length {
            return Arrival::Refused("queue-full");
        }
        if !queue.is_active() {
            self.active += 1;
            queue.virtual_start = queue.virtual_start.max(self.virtual_now);
        }
        queue.waiting.push_back(Waiting { ticket: ticket(), seats });
        queue.waiting_seats += seats;
        self.waiting += 1;
        self.waiting_seats += seats;
        Arrival::Waits(index)
    }

    /// A request that was served has ended after `took`; `None`: it never began.
    pub(super) fn finish(&mut self, now: Duration, index: usize, seats: u32, took: Option<Duration>) {
        self.advance(now);
        self.executing -= 1;
        self.seats_in_use -= seats;
        let queue = &mut self.queues[index];
        queue.executing -= 1;
        queue.seats_in_use -= seats;
        // What was guessed too much is given back, and the other way round.
        queue.virtual_start -= (GUESS - took.unwrap_or_default().as_secs_f64()) * f64::from(seats);
        if !queue.is_active() {
            self.active -= 1;
        }
    }

    /// A request waits no more. False when it does not wait there.
    pub(super) fn withdraw(&mut self, now: Duration, index: usize, ticket: &T) -> bool {
        self.advance(now);
        let queue = &mut self.queues[index];
        let Some(place) = queue.waiting.iter().position(|waiting| waiting.ticket == *ticket) else {
            return false;
        };
        let Some(waiting) = queue.waiting.remove(place) else { return false };
        queue.waiting_seats -= waiting.seats;
        self.waiting -= 1;
        self.waiting_seats -= waiting.seats;
        if !queue.is_active() {
            self.active -= 1;
        }
        true
    }

    /// From now on so many seats may be in use.
    pub(super) fn limit_to(&mut self, now: Duration, limit: u32) {
        self.advance(now);
        self.limit = limit;
    }

    /// The next request that waits and can be served now, and its queue; it counts as served.
    pub(super) fn next(&mut self, now: Duration) -> Option<(usize, Waiting<T>)> {
        if self.waiting == 0 {
            return None;
        }
        self.advance(now);
        let index = self.furthest_behind()?;
        let seats = self.queues[index].waiting.front()?.seats;
        if !self.fits(seats) {
            return None;
        }
        let waiting = self.queues[index].waiting.pop_front()?;
        self.queues[index].waiting_seats -= seats;
        self.waiting -= 1;
        self.waiting_seats -= seats;
        // Active it was, and stays so.
        self.active -= usize::from(!self.queues[index].is_active());
        self.serve(index, seats);
        self.last = index;
        Some((index, waiting))
    }

    fn serve(&mut self, index: usize, seats: u32) {
        let queue = &mut self.queues[index];
        if !queue.is_active() {
            self.active += 1;
            queue.virtual_start = queue.virtual_start.max(self.virtual_now);
        }
        queue.virtual_start += GUESS * f64::from(seats);
        queue.executing += 1;
        queue.seats_in_use += seats;
        self.executing += 1;
        self.seats_in_use += seats;
    }

    /// Whether so many seats are free. Who wants more than there are gets them when nobody else has any.
    fn fits(&self, seats: u32) -> bool {
        self.seats_in_use + seats <= self.limit || (seats > self.limit && self.executing == 0)
    }

    /// Of the queues that a flow may use, the one with the least before it.
    fn choose(&self, hash: u64, queues: usize, hand: usize) -> usize {
        deal::hand(hash, queues.max(1), hand).min_by_key(|index| self.queues[*index].backlog()).unwrap_or(0)
    }

    /// The queue whose next request would be the first to end; among equals in turn.
    fn furthest_behind(&self) -> Option<usize> {
        let count = self.queues.len();
        let mut best: Option<(f64, usize)> = None;
        for index in (1..=count).map(|step| (self.last + step) % count) {
            let queue = &self.queues[index];
            let Some(first) = queue.waiting.front() else { continue };
            let end = queue.virtual_start + GUESS * f64::from(first.seats);
            if best.is_none_or(|(least, _)| end < least) {
                best = Some((end, index));
            }
        }
        best.map(|(_, index)| index)
    }

    /// Virtual time moves on with the work that each active queue gets done.
    fn advance(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.now).as_secs_f64();
        self.now = self.now.max(now);
        if self.active > 0 {
            let busy = f64::from(self.demand().min(self.limit));
            self.virtual_now += passed * busy / self.active as f64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUEUES: Discipline = Discipline::Queue { queues: 8, hand: 1, length: 3 };

    fn at(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// A flow whose only queue is this one.
    fn flow(queue: u64) -> u64 {
        queue
    }

    #[test]
    fn who_finds_a_seat_is_served_at_once() {
        let mut queues = Queues::new(QUEUES, 2);
        assert_eq!(queues.arrive(at(0), flow(3), 1, || 1), Arrival::Served(3));
        assert_eq!(queues.arrive(at(0), flow(3), 1, || 2), Arrival::Served(3));
        assert_eq!(queues.arrive(at(0), flow(3), 1, || 3), Arrival::Waits(3));
        assert_eq!((queues.counts(), queues.demand()), ((2, 1), 3));
        assert!(queues.next(at(1)).is_none());
        queues.finish(at(5), 3, 1, Some(at(5)));
        assert_eq!(queues.next(at(5)).unwrap().1.ticket, 3);
        queues.finish(at(6), 3, 1, Some(at(6)));
        queues.finish(at(6), 3, 1, Some(at(1)));
        assert_eq!((queues.counts(), queues.active), ((0, 0), 0));
    }

    #[test]
    fn a_queue_has_an_end() {
        let mut queues = Queues::new(QUEUES, 1);
        assert_eq!(queues.arrive(at(0), flow(0), 1, || 0), Arrival::Served(0));
        for ticket in 1..=3 {
            assert_eq!(queues.arrive(at(0), flow(0), 1, || ticket), Arrival::Waits(0));
        }
        assert_eq!(queues.arrive(at(0), flow(0), 1, || 4), Arrival::Refused("queue-full"));
        // Another flow is not touched by that.
        assert_eq!(queues.arrive(at(0), flow(1), 1, || 5), Arrival::Waits(1));
    }

    #[test]
    fn a_level_without_queues_sends_away_what_finds_no_seat() {
        let mut queues = Queues::new(Discipline::Reject, 1);
        assert_eq!(queues.arrive(at(0), flow(5), 1, || 0), Arrival::Served(0));
        assert_eq!(queues.arrive(at(0), flow(6), 1, || 1), Arrival::Refused("concurrency-limit"));
    }

    #[test]
    fn a_flow_that_asks_little_is_not_held_up_by_one_that_asks_much() {
        let mut queues = Queues::new(Discipline::Queue { queues: 8, hand: 1, length: 100 }, 1);
        queues.arrive(at(0), flow(0), 1, || 0);
        for ticket in 1..=50 {
            queues.arrive(at(0), flow(0), 1, || ticket);
        }
        queues.arrive(at(1), flow(1), 1, || 100);
        queues.finish(at(10), 0, 1, Some(at(10)));
        let (queue, waiting) = queues.next(at(10)).unwrap();
        assert_eq!((queue, waiting.ticket), (1, 100));
    }

    #[test]
    fn flows_that_both_ask_much_take_turns() {
        let mut queues = Queues::new(Discipline::Queue { queues: 8, hand: 1, length: 100 }, 1);
        queues.arrive(at(0), flow(0), 1, || 0);
        for ticket in 1..=20 {
            queues.arrive(at(0), flow(0), 1, || ticket);
            queues.arrive(at(0), flow(1), 1, || 100 + ticket);
        }
        let mut served = [0, 0];
        let (mut now, mut index) = (0, 0);
        for _ in 0..20 {
            now += 5;
            queues.finish(at(now), index, 1, Some(at(5)));
            index = queues.next(at(now)).unwrap().0;
            served[index] += 1;
        }
        assert_eq!(served, [10, 10]);
    }

    #[test]
    fn a_wide_request_waits_for_its_seats_and_is_not_passed_by() {
        let mut queues = Queues::new(QUEUES, 4);
        queues.arrive(at(0), flow(0), 3, || 0);
        assert_eq!(queues.arrive(at(0), flow(1), 2, || 1), Arrival::Waits(1));
        assert_eq!(queues.arrive(at(0), flow(1), 1, || 2), Arrival::Waits(1));
        assert!(queues.next(at(0)).is_none());
        queues.finish(at(3), 0, 3, Some(at(3)));
        assert_eq!(queues.next(at(3)).unwrap().1.ticket, 1);
        assert_eq!(queues.next(at(3)).unwrap().1.ticket, 2);
        // More than there are at all: alone.
        let mut queues = Queues::new(QUEUES, 4);
        assert_eq!(queues.arrive(at(0), flow(0), 10, || 0), Arrival::Served(0));
        assert_eq!(queues.arrive(at(0), flow(1), 1, || 1), Arrival::Waits(1));
    }

    #[test]
    fn who_waits_may_leave() {
        let mut queues = Queues::new(QUEUES, 1);
        queues.arrive(at(0), flow(0), 1, || 0);
        queues.arrive(at(0), flow(1), 1, || 1);
        assert!(queues.withdraw(at(1), 1, &1));
        assert!(!queues.withdraw(at(1), 1, &1));
        assert_eq!((queues.counts(), queues.demand(), queues.active), ((1, 0), 1, 1));
    }

    #[test]
    fn more_seats_let_those_in_who_wait_and_fewer_queues_are_still_emptied() {
        let mut queues = Queues::new(QUEUES, 1);
        queues.arrive(at(0), flow(7), 1, || 0);
        queues.arrive(at(0), flow(7), 1, || 1);
        queues.reconfigure(Discipline::Queue { queues: 2, hand: 1, length: 3 });
        queues.limit_to(at(1), 2);
        assert_eq!(queues.next(at(1)).unwrap().0, 7);
        queues.finish(at(2), 7, 1, Some(at(2)));
        queues.finish(at(2), 7, 1, None);
        queues.reconfigure(Discipline::Queue { queues: 2, hand: 1, length: 3 });
        assert_eq!(queues.glances().count(), 2);
    }
}
