//! The pages: plain HTML, CSS and ES modules inside the binary. No build step, nothing from elsewhere, strict CSP.

use axum::Router;
use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};

use crate::app::App;
use crate::error::Error;

/// Everything comes from here; nothing may be written inline, and nobody may frame the pages.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// One file of the pages.
struct Asset {
    name: &'static str,
    kind: &'static str,
    bytes: &'static [u8],
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

macro_rules! asset {
    ($name:literal, $kind:expr) => {
        Asset { name: $name, kind: $kind, bytes: include_bytes!(concat!("ui/", $name)) }
    };
}

const CHAT_PAGE: Asset = asset!("chat.html", HTML);
const OPS_PAGE: Asset = asset!("ops.html", HTML);

const ASSETS: &[Asset] = &[
    asset!("style.css", CSS),
    asset!("icon.svg", SVG),
    asset!("chat.js", JS),
    asset!("api.js", JS),
    asset!("login.js", JS),
    asset!("room.js", JS),
    asset!("socket.js", JS),
    asset!("dom.js", JS),
    asset!("ops.js", JS),
];

/// `/`, `/ops` and what they load.
pub fn routes() -> Router<App> {
    Router::new()
        .route("/", get(async || page(&CHAT_PAGE)))
        .route("/ops", get(async || page(&OPS_PAGE)))
        .route("/assets/{name}", get(asset))
}

fn page(page: &Asset) -> Response {
    let headers = [
        (CONTENT_TYPE, page.kind),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // The address of a page never leaves this site.
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-cache"),
    ];
    (headers, page.bytes).into_response()
}

async fn asset(Path(name): Path<String>) -> Result<Response, Error> {
    let asset = ASSETS.iter().find(|asset| asset.name == name);
    let asset = asset.ok_or_else(|| Error::not_found("there is no such file"))?;
    let headers = [
        (CONTENT_TYPE, asset.kind),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // During a rolling upgrade a browser may ask the old and the new replica in turn.
        (CACHE_CONTROL, "no-cache"),
    ];
    Ok((headers, asset.bytes).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pages_load_nothing_from_elsewhere_and_write_nothing_inline() {
        for page in ASSETS.iter().chain([&CHAT_PAGE, &OPS_PAGE]) {
            let text = std::str::from_utf8(page.bytes).expect("all files are text");
            let elsewhere = text.replace("http://www.w3.org/2000/svg", "");
            assert!(!elsewhere.contains("http://") && !elsewhere.contains("https://"), "{}", page.name);
            assert!(!text.contains("innerHTML"), "{}: text of users must never become markup", page.name);
            if page.kind == HTML {
                for inline in [" style=", " onclick=", "<style", "<script>"] {
                    assert!(!text.contains(inline), "{}: the policy forbids {inline}", page.name);
                }
            }
        }
    }

    #[test]
    fn every_module_that_is_loaded_exists() {
        for page in ASSETS.iter().filter(|asset| asset.kind == JS) {
            let text = std::str::from_utf8(page.bytes).expect("all files are text");
            for loaded in text.split("from \"./").skip(1) {
                let name = loaded.split('"').next().expect("split gives one part at least");
                assert!(ASSETS.iter().any(|asset| asset.name == name), "{} loads {name}", page.name);
            }
        }
    }
}
