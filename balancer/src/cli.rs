//! The command line, as nginx's.

use std::path::{Path, PathBuf};

use clap::{Parser, ValueEnum};

use crate::conf::Origin;

/// The version whose semantics we follow: scripts that ask for it get an answer they can compare.
pub const NGINX_VERSION: &str = "1.31.5";

const PREFIX_DEFAULT: &str = "/etc/nginx";
const FILE_DEFAULT: &str = "nginx.conf";

/// HTTP reverse proxy and load balancer that reads nginx.conf.
#[derive(Debug, Parser)]
#[command(name = "balancer", disable_version_flag = true)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct Cli {
    /// Show the version and exit.
    #[arg(short = 'v')]
    pub version: bool,
    /// Show the version and what is built in, and exit.
    #[arg(short = 'V')]
    pub build: bool,
    /// Test the configuration and exit.
    #[arg(short = 't')]
    pub test: bool,
    /// Test the configuration, print it and exit.
    #[arg(short = 'T')]
    pub dump: bool,
    /// Say only what is wrong while testing.
    #[arg(short = 'q')]
    pub quiet: bool,
    /// Send a signal to the running process.
    #[arg(short = 's', value_name = "SIGNAL")]
    pub signal: Option<Order>,
    /// Ask the running process for `/health/ready` on its ops port, and exit with 0 when it is.
    #[arg(long)]
    pub healthcheck: bool,
    /// Where relative paths of logs and of the pid file start.
    #[arg(short = 'p', value_name = "PREFIX")]
    pub prefix: Option<PathBuf>,
    /// The configuration file; relative to the prefix.
    #[arg(short = 'c', value_name = "FILE", default_value = FILE_DEFAULT)]
    pub file: PathBuf,
    /// The error log of a configuration that names none.
    #[arg(short = 'e', value_name = "FILE")]
    pub error_log: Option<PathBuf>,
    /// Directives to put before the configuration file's.
    #[arg(short = 'g', value_name = "DIRECTIVES", default_value = "")]
    pub extra: String,
}

/// What `-s` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Order {
    Stop,
    Quit,
    Reload,
    Reopen,
}

impl Cli {
    pub fn origin(&self) -> Origin {
        let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
        let prefix = here.join(self.prefix.as_deref().unwrap_or(Path::new(PREFIX_DEFAULT)));
        Origin {
            file: prefix.join(&self.file),
            extra: self.extra.clone(),
            error_log: self.error_log.clone().filter(|path| path.as_os_str() != "stderr"),
            prefix,
        }
    }
}

/// What `-v` and `-V` print, on stderr as nginx does.
pub fn version(with_build: bool) -> String {
    let own = env!("CARGO_PKG_VERSION");
    let mut text = format!("nginx version: nginx/{NGINX_VERSION} (balancer/{own})\n");
    if with_build {
        let arguments: Vec<String> = {
            let build = format!("--build=balancer/{own}");
            BUILT_IN.iter().map(|name| format!("--with-{name}")).chain(left_out()).chain([build]).collect()
        };
        text.push_str(&format!(
            "built for {}\nbuilt with rustls, after nginx built with OpenSSL {OPENSSL_VERSION}\n\
             TLS SNI support enabled\nconfigure arguments: {}\n",
            std::env::consts::OS,
            arguments.join(" ")
        ));
    }
    text
}

/// Whose names and rules `ssl_*` follow; scripts look for it.
const OPENSSL_VERSION: &str = "3.0.0";

/// nginx's optional modules that we have.
const BUILT_IN: &[&str] = &[
    "threads",
    "http_realip_module",
    "http_ssl_module",
    "http_v2_module",
    "http_auth_request_module",
    "http_gunzip_module",
    "http_gzip_static_module",
    "http_stub_status_module",
];

/// nginx's default modules that we do not have (yet).
const LEFT_OUT: &[&str] = &[
    "http_userid",
    "http_mirror",
    "http_autoindex",
    "http_referer",
    "http_fastcgi",
    "http_uwsgi",
    "http_scgi",
    "http_memcached",
    "http_empty_gif",
    "http_browser",
    "http_tunnel",
    "http-cache",
    "mail_pop3",
    "mail_imap",
    "mail_smtp",
    "stream_limit_conn",
    "http_v3",
];

fn left_out() -> impl Iterator<Item = String> {
    LEFT_OUT.iter().map(|name| match name.strip_suffix("-cache") {
        Some(_) => format!("--without-{name}"),
        None => format!("--without-{name}_module"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_those_of_nginx() {
        let cli = Cli::parse_from(["balancer", "-tq", "-p", "/tmp/x", "-c", "a.conf", "-g", "daemon off;"]);
        assert!(cli.test && cli.quiet);
        let origin = cli.origin();
        assert_eq!(origin.file, Path::new("/tmp/x/a.conf"));
        assert_eq!(origin.extra, "daemon off;");
        assert_eq!(Cli::parse_from(["balancer", "-s", "reload"]).signal, Some(Order::Reload));
        assert!(Cli::try_parse_from(["balancer", "-s", "restart"]).is_err());
    }

    #[test]
    fn the_version_can_be_read_by_scripts() {
        assert!(version(false).starts_with("nginx version: nginx/1."));
        assert!(version(true).contains("configure arguments: --with-"));
    }
}
