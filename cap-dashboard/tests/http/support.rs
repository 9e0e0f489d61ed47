//! A dashboard on a port of its own, over a storage with messages that the test puts there.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use cap_core::message::{Headers, Message};
use cap_core::monitor::Row;
use cap_core::storage::{Entry, Identity, NewIncoming, NewOutgoing, Owner, Reason, Side, WriteBatch};
use cap_dashboard::{AccessToken, Auth, Dashboard, Rights, SigningKey};
use reqwest::header::{AUTHORIZATION, COOKIE, LOCATION, SET_COOKIE};
use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use tokio::net::TcpListener;

use crate::store::Store;

pub(crate) const HOUR: Duration = Duration::from_secs(3600);
/// What the users of [`auth`] prove themselves with.
pub(crate) const READER: &str = "the-secret-of-reader";
pub(crate) const ACTOR: &str = "the-secret-of-actor";
pub(crate) const UNMASKER: &str = "the-secret-of-unmasker";

/// A dashboard that is served at `/cap` until the test ends.
pub(crate) struct Site {
    pub(crate) url: String,
    pub(crate) client: Client,
    pub(crate) store: Store,
}

/// A browser that is logged in.
pub(crate) struct Browser<'a> {
    site: &'a Site,
    pub(crate) cookie: String,
    pub(crate) csrf: String,
}

pub(crate) fn key() -> SigningKey {
    SigningKey::new([7; 32]).unwrap()
}

pub(crate) fn auth() -> Auth {
    let tokens = [
        AccessToken::new("reader", READER, Rights::read()),
        AccessToken::new("actor", ACTOR, Rights::read().act()),
        AccessToken::new("unmasker", UNMASKER, Rights::all()),
    ];
    Auth::login(key(), tokens)
}

/// A dashboard with [`auth`].
pub(crate) async fn site() -> Site {
    site_with(auth(), |dashboard| dashboard).await
}

pub(crate) async fn site_with(auth: Auth, set: impl FnOnce(Dashboard) -> Dashboard) -> Site {
    site_on(Store::memory(), auth, set).await
}

pub(crate) async fn site_on(store: Store, auth: Auth, set: impl FnOnce(Dashboard) -> Dashboard) -> Site {
    let router = set(Dashboard::new(store.operator().await)).router(auth).unwrap();
    serve(Router::new().nest("/cap", router), store).await
}

pub(crate) async fn serve(router: Router, store: Store) -> Site {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://127.0.0.1:{}/cap", listener.local_addr().unwrap().port());
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, service).await });
    let client = Client::builder().redirect(Policy::none()).build().unwrap();
    Site { url, client, store }
}

/// A message of the inbox that has failed for good.
pub(crate) fn parked(id: i64, topic: &str, body: impl Into<Vec<u8>>) -> NewIncoming {
    let entry = Entry::Parked {
        reason: Reason::Permanent,
        error: format!("row {id} failed"),
        keep: HOUR,
        notify: false,
    };
    NewIncoming {
        id,
        group: "stock.v1".into(),
        message: message(id, topic, body),
        entry,
        identity: Identity::default(),
    }
}

pub(crate) fn message(id: i64, topic: &str, body: impl Into<Vec<u8>>) -> Arc<Message> {
    let id = format!("m{id}");
    let headers: Headers = [("cap-msg-id", id.as_str()), ("cap-msg-name", topic)].into_iter().collect();
    Arc::new(Message::new(headers, body.into()))
}

impl Site {
    pub(crate) async fn put(&self, batch: WriteBatch) {
        let owner = Owner { node: "gone".into(), version: "v1".into(), lease: HOUR };
        self.store.write(&owner, &batch).await;
    }

    pub(crate) async fn park(&self, incoming: impl IntoIterator<Item = NewIncoming>) {
        let incoming = incoming.into_iter().collect();
        self.put(WriteBatch { incoming, ..WriteBatch::default() }).await;
    }

    pub(crate) async fn delay(&self, id: i64) {
        let message = message(id, "order.later", "1");
        let outgoing = vec![NewOutgoing { id, message, delay: Some(HOUR), held: false }];
        self.put(WriteBatch { outgoing, ..WriteBatch::default() }).await;
    }

    pub(crate) async fn row(&self, side: Side, id: i64) -> Option<Row> {
        self.store.get(side, id).await
    }

    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("{}{path}", self.url))
    }

    pub(crate) fn post(&self, path: &str) -> RequestBuilder {
        self.client.post(format!("{}{path}", self.url))
    }

    /// The response to a user with this secret.
    pub(crate) async fn as_user(&self, secret: &str, path: &str) -> Response {
        self.get(path).header(AUTHORIZATION, format!("Bearer {secret}")).send().await.unwrap()
    }

    /// The page for a user with this secret.
    pub(crate) async fn page(&self, secret: &str, path: &str) -> String {
        let response = self.as_user(secret, path).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        response.text().await.unwrap()
    }

    /// Logs in through the page.
    pub(crate) async fn log_in(&self, name: &str, secret: &str) -> Browser<'_> {
        let response =
            self.post("/login").form_of(&[("name", name), ("token", secret)]).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::SEE_OTHER);
        let set = response.headers()[SET_COOKIE].to_str().unwrap();
        let cookie = set.split(';').next().unwrap().to_owned();
        let mut browser = Browser { site: self, cookie, csrf: String::new() };
        let page = browser.get("").send().await.unwrap().text().await.unwrap();
        browser.csrf = value_of(&page, "csrf");
        browser
    }
}

impl Browser<'_> {
    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.site.get(path).header(COOKIE, &self.cookie)
    }

    /// Sends a form without a token.
    pub(crate) fn post_bare(&self, path: &str, pairs: &[(&str, &str)]) -> RequestBuilder {
        self.site.post(path).header(COOKIE, &self.cookie).form_of(pairs)
    }

    /// Sends a form as the page does.
    pub(crate) async fn post(&self, path: &str, pairs: &[(&str, &str)]) -> Response {
        let with_token = [&[("csrf", self.csrf.as_str())], pairs].concat();
        self.post_bare(path, &with_token).send().await.unwrap()
    }
}

pub(crate) trait FormOf {
    fn form_of(self, pairs: &[(&str, &str)]) -> Self;
}

impl FormOf for RequestBuilder {
    fn form_of(self, pairs: &[(&str, &str)]) -> Self {
        let encoded = |text: &str| {
            text.bytes().fold(String::new(), |mut all, byte| {
                let _ = write!(all, "%{byte:02X}");
                all
            })
        };
        let body: Vec<String> =
            pairs.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
        self.header("content-type", "application/x-www-form-urlencoded").body(body.join("&"))
    }
}

/// The value of a hidden field on a page.
pub(crate) fn value_of(page: &str, name: &str) -> String {
    let start = format!("name=\"{name}\" value=\"");
    let rest = page.split(&start).nth(1).unwrap_or_else(|| panic!("no field {name} on {page}"));
    rest.split('"').next().unwrap().to_owned()
}

/// Where a redirect leads.
pub(crate) fn location(response: &Response) -> &str {
    response.headers()[LOCATION].to_str().unwrap()
}
