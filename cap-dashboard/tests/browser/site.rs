//! A dashboard with messages, and a user who is logged in to it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use cap_core::Operator;
use cap_core::memory::MemoryStorage;
use cap_core::message::{Headers, Message};
use cap_core::monitor::{Monitor as _, Row};
use cap_core::storage::{Entry, Identity, NewIncoming, Owner, Reason, Side, Storage as _, WriteBatch};
use cap_dashboard::{AccessToken, Auth, Dashboard, Rights, SigningKey};
use tokio::net::TcpListener;

use crate::chrome::Chrome;

const HOUR: Duration = Duration::from_secs(3600);
const SECRET: &str = "the-secret-of-alice";

pub(crate) struct Site {
    pub(crate) url: String,
    storage: MemoryStorage,
}

impl Site {
    pub(crate) async fn start() -> Self {
        let storage = MemoryStorage::new();
        let operator = Operator::open(storage.clone()).await.unwrap();
        let alice = AccessToken::new("alice", SECRET, Rights::read().act());
        let auth = Auth::login(SigningKey::new([7; 32]).unwrap(), [alice]);
        let router = Dashboard::new(operator).production("Shop EU").router(auth).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://localhost:{}/cap", listener.local_addr().unwrap().port());
        let service = Router::new().nest("/cap", router).into_make_service_with_connect_info::<SocketAddr>();
        tokio::spawn(async move { axum::serve(listener, service).await });
        Self { url, storage }
    }

    /// Parks messages of a topic under these row ids.
    pub(crate) async fn park(&self, ids: impl IntoIterator<Item = i64>, topic: &str, body: &str) {
        let one = |id: i64| {
            let message_id = format!("m{id}");
            let headers: Headers =
                [("cap-msg-id", &*message_id), ("cap-msg-name", topic)].into_iter().collect();
            NewIncoming {
                id,
                group: "stock.v1".into(),
                message: Arc::new(Message::new(headers, body.as_bytes().to_vec())),
                entry: Entry::Parked {
                    reason: Reason::Permanent,
                    error: format!("no shelf for {id}"),
                    keep: HOUR,
                    notify: false,
                },
                identity: Identity::default(),
            }
        };
        let owner = Owner { node: "gone".into(), version: "v1".into(), lease: HOUR };
        let incoming = ids.into_iter().map(one).collect();
        self.storage.write(&owner, &WriteBatch { incoming, ..WriteBatch::default() }).await.unwrap();
    }

    pub(crate) async fn row(&self, id: i64) -> Row {
        self.storage.get(Side::Inbox, id).await.unwrap().unwrap()
    }

    /// Logs in by typing.
    pub(crate) async fn log_in(&self, chrome: &Chrome) {
        chrome.go(&self.url).await;
        chrome.type_into("#name", "alice").await;
        chrome.type_into("#token", SECRET).await;
        chrome.click(".login-box button").await;
        chrome.find("#live").await;
    }
}
