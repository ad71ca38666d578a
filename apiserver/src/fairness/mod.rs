//! API Priority and Fairness: nobody who asks much keeps others waiting who ask little.
//!
//! A request is classified by the first FlowSchema that means it ([`classify`]), which leads to a priority level
//! ([`level`]). It takes seats there ([`estimate`]) as long as it is being answered. Where there are none it waits in one of
//! the level's fair queues ([`queues`], [`deal`]) or is sent away with 429. Levels that are idle lend seats to those that
//! are not ([`share`]). Configuration and borrowing are kept up to date behind requests' backs ([`follow`]).

mod classify;
mod config;
mod deal;
mod dump;
mod estimate;
mod follow;
mod level;
mod metrics;
pub(crate) mod objects;
mod queues;
mod share;

use std::{
    sync::{Arc, PoisonError, RwLock},
    task::Poll,
};

use axum::body::Body;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use tokio::sync::Notify;

use crate::{
    answer,
    registry::Registry,
    request::{Query, RequestInfo, User},
};
use config::{Config, Work};
pub(crate) use estimate::Crowd;
pub(crate) use follow::set_conditions;
use level::{Level, Seat};

const SCHEMA_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
const LEVEL_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");

/// Who is served when.
pub(crate) struct Fairness {
    config: RwLock<Config>,
    /// How many seats there are in all.
    seats: u32,
    /// Somebody had to wait or was sent away.
    shortage: Notify,
}

/// How a request was classified, for its answer.
pub(crate) struct Class {
    schema: Option<HeaderValue>,
    level: Option<HeaderValue>,
}

/// Whether a request is answered.
pub(crate) enum Turn {
    /// Now, and this is to be kept until it is; `None` for what takes no seat.
    Now(Option<Seat>),
    /// Not at all, and this is what the client is told.
    Never(Response<Body>),
}

/// Where a request belongs.
struct Classified {
    uids: Class,
    level: Arc<Level>,
    work: Arc<Work>,
    flow: Box<str>,
}

impl Fairness {
    /// Serves so many requests at once, by the objects of `registry`.
    pub(crate) fn start(registry: &Arc<Registry>, seats: u32) -> Arc<Fairness> {
        let config = RwLock::new(Config::of(&[], &[], seats, None));
        let fairness = Arc::new(Fairness { config, seats, shortage: Notify::new() });
        follow::start(&fairness, registry);
        fairness
    }

    /// When it is a request's turn; `class` is told who has decided about it.
    pub(crate) async fn turn(
        &self,
        registry: &Registry,
        user: &User,
        info: &RequestInfo,
        query: &Query,
        class: &mut Option<Class>,
    ) -> Turn {
        let Some(Classified { uids, level, work, flow }) = self.classified(user, info) else {
            return Turn::Now(None);
        };
        *class = Some(uids);
        let crowd = match estimate::depends_on_crowd(info, query) && !level.is_exempt() {
            true => registry.crowd(&info.group, &info.version, &info.resource),
            false => Crowd::default(),
        };
        let mut seat = std::pin::pin!(level.seat(&work, &flow, estimate::seats(info, query, crowd)));
        let seated = match futures::poll!(&mut seat) {
            Poll::Ready(seated) => seated,
            Poll::Pending => {
                self.shortage.notify_one();
                seat.await
            }
        };
        match seated {
            Ok(seat) => Turn::Now(Some(seat)),
            Err(reason) => {
                self.shortage.notify_one();
                work.metrics.rejected(reason);
                Turn::Never(too_many_requests())
            }
        }
    }

    fn classified(&self, user: &User, info: &RequestInfo) -> Option<Classified> {
        // What is meant to last takes no seats, but for watches, which take theirs until they have begun.
        if info.is_long_running() && info.verb != "watch" {
            return None;
        }
        let config = self.config.read().unwrap_or_else(PoisonError::into_inner);
        let served = config.classify(user, info)?;
        Some(Classified {
            uids: Class { schema: served.schema_uid.clone(), level: served.level_uid.clone() },
            level: served.level.clone(),
            work: served.work.clone(),
            flow: served.schema.flow(user, info).into(),
        })
    }

    /// One of the debug pages.
    pub(crate) fn page(&self, name: &str) -> Option<String> {
        dump::page(&self.config.read().unwrap_or_else(PoisonError::into_inner), name)
    }

    fn change<R>(&self, change: impl FnOnce(&mut Config) -> R) -> R {
        change(&mut self.config.write().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Class {
    /// Tells the client who has decided about it.
    pub(crate) fn mark(self, response: &mut Response<Body>) {
        for (name, uid) in [(SCHEMA_UID, self.schema), (LEVEL_UID, self.level)] {
            if let Some(uid) = uid {
                response.headers_mut().insert(name, uid);
            }
        }
    }
}

/// 429, as upstream says it.
fn too_many_requests() -> Response<Body> {
    let text = "Too many requests, please try again later.\n";
    let mut response = answer::text(StatusCode::TOO_MANY_REQUESTS, text);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}
