//! The live page. It reads the API like anybody else.

/// The page, told where the API is.
pub fn page(api: &str) -> Vec<u8> {
    include_str!("../ui/dashboard.html").replace("API_PATH", api).into_bytes()
}
