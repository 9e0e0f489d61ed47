//! A browser of the test's own.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use fantoccini::elements::Element;
use fantoccini::key::Key;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// How long a page may take to show what a test waits for.
const PATIENCE: Duration = Duration::from_secs(20);

/// The width and the colors of a browser.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Look {
    Desktop,
    Dark,
    Phone,
}

/// A browser with a profile of its own. It ends with the test.
pub(crate) struct Chrome {
    pub(crate) client: Client,
    profile: PathBuf,
    _driver: Child,
}

impl Chrome {
    /// Starts a browser; `None` if there is none on this machine.
    pub(crate) async fn start(look: Look) -> Option<Self> {
        let driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn();
        let Ok(mut driver) = driver else {
            eprintln!("left out: chromedriver is not installed (apt-get install chromium chromium-driver)");
            return None;
        };
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port: u16 = loop {
            let line = lines.next_line().await.unwrap().expect("chromedriver says its port");
            if let Some(port) = line.split("successfully on port ").nth(1) {
                break port.trim_end_matches('.').parse().unwrap();
            }
        };
        // It must not stop at a full pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let profile = std::env::temp_dir().join(format!("cap-browser-{:016x}", fastrand::u64(..)));
        let capabilities = capabilities(look, &profile);
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities.as_object().unwrap().clone())
            .connect(&format!("http://127.0.0.1:{port}"))
            .await
            .unwrap();
        Some(Self { client, profile, _driver: driver })
    }

    pub(crate) async fn go(&self, url: &str) {
        self.client.goto(url).await.unwrap();
    }

    /// The first element that a selector finds, as soon as it is there.
    pub(crate) async fn find(&self, selector: &str) -> Element {
        let wait = self.client.wait().at_most(PATIENCE).every(Duration::from_millis(20));
        let found = wait.for_element(Locator::Css(selector)).await;
        found.unwrap_or_else(|error| panic!("{selector}: {error}"))
    }

    pub(crate) async fn click(&self, selector: &str) {
        self.find(selector).await.click().await.unwrap();
    }

    pub(crate) async fn type_into(&self, selector: &str, text: &str) {
        self.find(selector).await.send_keys(text).await.unwrap();
    }

    pub(crate) async fn text(&self, selector: &str) -> String {
        self.find(selector).await.text().await.unwrap()
    }

    /// Presses keys without naming an element: they go to what has the focus.
    pub(crate) async fn press(&self, keys: &str) {
        for key in keys.chars() {
            self.client.active_element().await.unwrap().send_keys(&key.to_string()).await.unwrap();
        }
    }

    pub(crate) async fn press_key(&self, key: Key) {
        self.client.active_element().await.unwrap().send_keys(&String::from(char::from(key))).await.unwrap();
    }

    /// What a function of the page returns.
    pub(crate) async fn ask(&self, script: &str) -> Value {
        self.client.execute(script, Vec::new()).await.unwrap()
    }

    /// Waits until an expression of the page is true.
    pub(crate) async fn until(&self, expression: &str) {
        let script = format!("return Boolean({expression})");
        for _ in 0..PATIENCE.as_millis() / 20 {
            if self.ask(&script).await == json!(true) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{expression} did not become true at {}", self.url().await);
    }

    pub(crate) async fn url(&self) -> String {
        self.client.current_url().await.unwrap().to_string()
    }

    /// Keeps a picture of the page, for whoever wants to look at it.
    pub(crate) async fn picture(&self, name: &str) {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("screenshots");
        std::fs::create_dir_all(&folder).unwrap();
        let picture = self.client.screenshot().await.unwrap();
        std::fs::write(folder.join(format!("{name}.png")), picture).unwrap();
    }

    pub(crate) async fn end(self) {
        self.client.close().await.unwrap();
        let _ = std::fs::remove_dir_all(self.profile);
    }
}

fn capabilities(look: Look, profile: &std::path::Path) -> Value {
    let profile = format!("--user-data-dir={}", profile.display());
    let mut arguments = vec![
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--hide-scrollbars",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-dev-shm-usage",
        "--window-size=1380,900",
        "--lang=en",
        &profile,
    ];
    if matches!(look, Look::Dark) {
        arguments.push("--blink-settings=preferredColorScheme=0");
    }
    let mut options = json!({ "args": arguments });
    if matches!(look, Look::Phone) {
        options["mobileEmulation"] =
            json!({ "deviceMetrics": { "width": 390, "height": 844, "pixelRatio": 2.0 } });
    }
    json!({ "goog:chromeOptions": options })
}
