//! One-time tokens: whoever has got a URL from the CRI may use it once, soon.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// How long a token is good for; as containerd and CRI-O have it.
const LIFETIME: Duration = Duration::from_secs(60);

/// How many tokens may be waiting to be used.
const MOST: usize = 1000;

/// What has been asked for, by the token that redeems it.
pub(super) struct Tokens<T>(HashMap<String, (T, Instant)>);

/// Too many requests are waiting to be redeemed.
#[derive(Debug, thiserror::Error)]
#[error("maximum number of in-flight streaming requests exceeded")]
pub struct TooManyRequests;

impl<T> Tokens<T> {
    pub fn new() -> Tokens<T> {
        Tokens(HashMap::new())
    }

    /// Keeps `request` until it is redeemed with `token`.
    pub fn issue(&mut self, token: String, request: T, now: Instant) -> Result<(), TooManyRequests> {
        self.0.retain(|_, (_, issued)| now.duration_since(*issued) < LIFETIME);
        if self.0.len() >= MOST {
            return Err(TooManyRequests);
        }
        self.0.insert(token, (request, now));
        Ok(())
    }

    /// What `token` stands for; a second time it stands for nothing.
    pub fn redeem(&mut self, token: &str, now: Instant) -> Option<T> {
        let (request, issued) = self.0.remove(token)?;
        (now.duration_since(issued) < LIFETIME).then_some(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_once_and_for_a_minute() {
        let (mut tokens, now) = (Tokens::new(), Instant::now());
        tokens.issue("a".into(), 1, now).unwrap();
        tokens.issue("b".into(), 2, now).unwrap();
        assert_eq!(tokens.redeem("a", now), Some(1));
        assert_eq!(tokens.redeem("a", now), None);
        assert_eq!(tokens.redeem("c", now), None);
        assert_eq!(tokens.redeem("b", now + LIFETIME), None);
    }

    #[test]
    fn tokens_that_nobody_redeems_make_room_in_the_end() {
        let (mut tokens, now) = (Tokens::new(), Instant::now());
        for number in 0..MOST {
            tokens.issue(number.to_string(), (), now).unwrap();
        }
        assert!(tokens.issue("one more".into(), (), now).is_err());
        tokens.issue("one more".into(), (), now + LIFETIME).unwrap();
    }
}
