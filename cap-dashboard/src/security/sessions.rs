//! Sessions: a signed cookie that says who logged in and until when.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::auth::{AccessToken, Auth};
use super::signing_key::SigningKey;

/// The name of the cookie.
pub(crate) const SESSION_COOKIE: &str = "cap-session";
/// The longest cookie that is looked at.
const LONGEST_COOKIE: usize = 1_024;
/// The most sessions that this process remembers as ended. Beyond that it forgets those that expire first.
const MOST_ENDED: usize = 10_000;

/// A session that is valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Session {
    pub(crate) name: String,
    /// A random text that names this session.
    pub(crate) id: String,
    expires: u64,
}

/// The sessions that were ended before they expired. Known to this process only: another node with the same key accepts
/// the cookie until it expires, but the browser has deleted it.
#[derive(Debug, Default)]
pub(crate) struct Ended(Mutex<BTreeSet<(u64, String)>>);

impl Session {
    /// Begins a session, and returns it with the value of its cookie.
    pub(crate) fn begin(key: &SigningKey, token: &AccessToken, lasts: Duration) -> Option<(Self, String)> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).ok()?;
        let id = URL_SAFE_NO_PAD.encode(random);
        let session = Self { name: token.name.clone(), id, expires: seconds_from_now(lasts) };
        let value = format!("{}.{}", session.payload(), session.signature(key, token));
        Some((session, value))
    }

    /// The session of a cookie, if it is signed by us, has not expired, and its token still exists with the same secret.
    pub(crate) fn of_cookie(key: &SigningKey, auth: &Auth, ended: &Ended, value: &str) -> Option<Self> {
        if value.len() > LONGEST_COOKIE {
            return None;
        }
        let [id, expires, name, signature] = value.split('.').collect::<Vec<_>>().try_into().ok()?;
        let name = String::from_utf8(URL_SAFE_NO_PAD.decode(name).ok()?).ok()?;
        let session = Self { name, id: id.to_owned(), expires: expires.parse().ok()? };
        let token = auth.token_named(&session.name)?;
        // The payload is made anew from what was read, so that there is one spelling of it.
        let parts = [session.payload().into_bytes(), token.secret_bytes().to_vec()];
        let is_signed = key.verify("session", &[&parts[0], &parts[1]], signature);
        let is_valid =
            is_signed && session.expires > seconds_from_now(Duration::ZERO) && !ended.has(&session);
        is_valid.then_some(session)
    }

    fn payload(&self) -> String {
        format!("{}.{}.{}", self.id, self.expires, URL_SAFE_NO_PAD.encode(&self.name))
    }

    fn signature(&self, key: &SigningKey, token: &AccessToken) -> String {
        let payload = self.payload();
        key.sign("session", &[payload.as_bytes(), token.secret_bytes()])
    }
}

impl Ended {
    /// Ends a session in this process.
    pub(crate) fn end(&self, session: &Session) {
        let mut ended = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = seconds_from_now(Duration::ZERO);
        ended.retain(|(expires, _)| *expires > now);
        ended.insert((session.expires, session.id.clone()));
        while ended.len() > MOST_ENDED {
            ended.pop_first();
        }
    }

    fn has(&self, session: &Session) -> bool {
        let ended = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ended.contains(&(session.expires, session.id.clone()))
    }
}

fn seconds_from_now(after: Duration) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_add(after).as_secs()
}

/// The value of a cookie of the request.
pub(crate) fn cookie_of<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = all.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(found, _)| *found == name).map(|(_, value)| value)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::security::rights::Rights;

    fn auth(secret: &str) -> (Auth, SigningKey) {
        let key = SigningKey::new([7; 32]).unwrap();
        let token = AccessToken::new("alice.b", secret, Rights::read());
        Auth::login(key, [token]).prepare().unwrap()
    }

    fn begin(auth: &Auth, key: &SigningKey, lasts: Duration) -> (Session, String) {
        Session::begin(key, auth.token_named("alice.b").unwrap(), lasts).unwrap()
    }

    #[test]
    fn a_session_is_valid_until_it_expires_or_ends() {
        let (auth, key) = auth("0123456789ab");
        let ended = Ended::default();
        let (session, cookie) = begin(&auth, &key, Duration::from_secs(60));
        let opened = Session::of_cookie(&key, &auth, &ended, &cookie).unwrap();
        assert_eq!(opened, session);
        ended.end(&opened);
        assert_eq!(Session::of_cookie(&key, &auth, &ended, &cookie), None);
        let (_, expired) = begin(&auth, &key, Duration::ZERO);
        assert_eq!(Session::of_cookie(&key, &auth, &Ended::default(), &expired), None);
    }

    #[test]
    fn a_changed_cookie_secret_or_key_is_rejected() {
        let (first, key) = auth("0123456789ab");
        let (_, cookie) = begin(&first, &key, Duration::from_secs(60));
        let (other, _) = auth("another secret");
        assert_eq!(Session::of_cookie(&key, &other, &Ended::default(), &cookie), None);
        for at in 0..cookie.len() {
            let mut changed = cookie.clone().into_bytes();
            changed[at] = if changed[at] == b'x' { b'y' } else { b'x' };
            let changed = String::from_utf8(changed).unwrap();
            assert_eq!(Session::of_cookie(&key, &first, &Ended::default(), &changed), None, "{changed}");
        }
    }
}
