//! A headless Chromium for tests. Pictures of the pages are left in the target's tmp folder, to be looked at.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::Path;
use std::time::{Duration, Instant};

use fantoccini::wd::{Capabilities, WindowHandle};
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;

const PATIENCE: Duration = Duration::from_secs(20);
const LOOK_PERIOD: Duration = Duration::from_millis(50);
const PORT_TRIES: u32 = 5;
/// This machine by a name: pages from there are not secure as those of 127.0.0.1 are, as where people read them.
pub const INSECURE_HOST: &str = "arena.test";

pub struct Browser {
    /// One session has one window in focus: whoever acts holds it.
    client: Mutex<Client>,
    driver: Mutex<Child>,
    _profile: tempfile::TempDir,
}

pub struct Window<'a> {
    browser: &'a Browser,
    handle: WindowHandle,
}

impl Browser {
    pub async fn start() -> Self {
        Self::start_as(&["--window-size=1200,800"], None).await
    }

    /// As on the phone of somebody who likes it dark.
    pub async fn start_small_and_dark() -> Self {
        let screen = json!({"width": 360, "height": 740, "pixelRatio": 2.0, "touch": false, "mobile": true});
        Self::start_as(&["--force-dark-mode"], Some(json!({ "deviceMetrics": screen }))).await
    }

    async fn start_as(look: &[&str], phone: Option<Value>) -> Self {
        let (driver, port) = start_driver().await;
        let profile = tempfile::tempdir().unwrap();
        let profile_argument = format!("--user-data-dir={}", profile.path().display());
        let mut capabilities = Capabilities::new();
        let hosts_argument = format!("--host-resolver-rules=MAP {INSECURE_HOST} 127.0.0.1");
        // Root may not have a sandbox, and containers have a small /dev/shm.
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-dev-shm-usage",
            "--disable-gpu",
            &profile_argument,
            &hosts_argument,
        ];
        let arguments: Vec<&str> = arguments.iter().chain(look).copied().collect();
        let mut options = json!({ "args": arguments });
        if let Some(phone) = phone {
            options["mobileEmulation"] = phone;
        }
        capabilities.insert("goog:chromeOptions".into(), options);
        capabilities.insert("goog:loggingPrefs".into(), json!({ "browser": "ALL" }));
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities)
            .connect(&format!("http://127.0.0.1:{port}"))
            .await
            .expect("chromedriver starts a Chromium");
        Self { client: Mutex::new(client), driver: Mutex::new(driver), _profile: profile }
    }

    /// A new window at this address.
    pub async fn window(&self, url: &str) -> Window<'_> {
        let client = self.client.lock().await;
        let handle = client.new_window(false).await.unwrap().handle;
        client.switch_to_window(handle.clone()).await.unwrap();
        client.goto(url).await.unwrap();
        Window { browser: self, handle }
    }

    pub async fn end(self) {
        self.client.into_inner().close().await.unwrap();
        let mut driver = self.driver.into_inner();
        driver.kill().await.unwrap();
    }
}

/// ChromeDriver on a port that we choose: where there is no IPv6 it does not know which one the system gave it.
async fn start_driver() -> (Child, u16) {
    for _ in 0..PORT_TRIES {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut driver = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            .stdout(std::process::Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("chromedriver must be installed: apt-get install chromium-driver");
        let mut lines = BufReader::new(driver.stdout.take().expect("its output is piped")).lines();
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.contains("was started successfully") {
                tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
                return (driver, port);
            }
        }
        // It has ended: somebody else took the port in between.
    }
    panic!("chromedriver found its port taken {PORT_TRIES} times");
}

impl Window<'_> {
    pub async fn click(&self, selector: &str) {
        let client = self.client().await;
        let element = client.wait().at_most(PATIENCE).for_element(Locator::Css(selector)).await.unwrap();
        until(selector, async || {
            element.is_displayed().await.unwrap() && element.is_enabled().await.unwrap()
        })
        .await;
        element.click().await.unwrap();
    }

    pub async fn fill(&self, selector: &str, text: &str) {
        let client = self.client().await;
        let element = client.wait().at_most(PATIENCE).for_element(Locator::Css(selector)).await.unwrap();
        until(selector, async || element.is_displayed().await.unwrap()).await;
        element.send_keys(text).await.unwrap();
    }

    pub async fn read(&self, selector: &str) -> String {
        let client = self.client().await;
        client.find(Locator::Css(selector)).await.unwrap().text().await.unwrap()
    }

    pub async fn log_in(&self, username: &str) {
        self.fill("#username", username).await;
        self.fill("#password", crate::PASSWORD).await;
        self.click("#entry-submit").await;
    }

    pub async fn count(&self, selector: &str) -> usize {
        self.client().await.find_all(Locator::Css(selector)).await.unwrap().len()
    }

    /// Nothing of the element's text is cut off at its edge.
    pub async fn shows_whole(&self, selector: &str) {
        let client = self.client().await;
        let script = "const e = document.querySelector(arguments[0]); \
            return e.clientWidth > 0 && e.scrollWidth <= e.clientWidth && e.scrollHeight <= 2 * parseFloat(getComputedStyle(e).fontSize)";
        let whole = client.execute(script, vec![json!(selector)]).await.unwrap();
        assert_eq!(whole, json!(true), "{selector} is cut off or wrapped");
    }

    /// Waits until an element has this text in it.
    pub async fn text(&self, selector: &str, text: &str) {
        let client = self.client().await;
        until(&format!("{selector} says {text:?}"), async || {
            let script = "return Array.from(document.querySelectorAll(arguments[0]), (e) => e.textContent).join('\\n')";
            let found = client.execute(script, vec![json!(selector)]).await.unwrap();
            found.as_str().is_some_and(|found| found.contains(text))
        })
        .await;
    }

    /// Waits until there is no such element any more.
    pub async fn loses(&self, selector: &str) {
        let client = self.client().await;
        until(&format!("{selector} is gone"), async || {
            client.find_all(Locator::Css(selector)).await.unwrap().is_empty()
        })
        .await;
    }

    /// No place for errors on the page says anything.
    pub async fn shows_no_errors(&self) {
        let client = self.client().await;
        let script =
            "return Array.from(document.querySelectorAll('.problem'), (e) => e.textContent).join('')";
        assert_eq!(client.execute(script, vec![]).await.unwrap(), json!(""));
    }

    /// What a program can find of accessibility faults on the page as it is now: there must be none.
    pub async fn is_accessible(&self) {
        let client = self.client().await;
        let faults = client.execute(include_str!("audit.js"), vec![]).await.unwrap();
        let faults: Vec<String> = serde_json::from_value(faults).unwrap();
        assert!(faults.is_empty(), "{}", faults.join("\n"));
    }

    /// What a script on the page comes to.
    pub async fn run(&self, script: &str) -> Value {
        self.client().await.execute(script, vec![]).await.unwrap()
    }

    pub async fn screenshot(&self, name: &str) {
        let client = self.client().await;
        let png = client.screenshot().await.unwrap();
        std::fs::write(Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.png")), png).unwrap();
    }

    async fn client(&self) -> tokio::sync::MutexGuard<'_, Client> {
        let client = self.browser.client.lock().await;
        client.switch_to_window(self.handle.clone()).await.unwrap();
        client
    }
}

/// Looks again and again: the browser tells nobody when its page has changed.
async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let start = Instant::now();
    while !is_so().await {
        assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
        tokio::time::sleep(LOOK_PERIOD).await;
    }
}
