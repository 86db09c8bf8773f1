//! Reason phrases, and the pages that nginx has built in, in its shape: clients and tests know them.

/// The reason phrase of a status; nginx's own where it has one.
pub fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Moved Temporarily",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Time-out",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Request Entity Too Large",
        414 => "Request-URI Too Large",
        415 => "Unsupported Media Type",
        416 => "Requested Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        425 => "Too Early",
        429 => "Too Many Requests",
        494 => "Request Header Or Cookie Too Large",
        495 => "The SSL certificate error",
        496 => "No required SSL certificate was sent",
        497 => "The plain HTTP request was sent to HTTPS port",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Temporarily Unavailable",
        504 => "Gateway Time-out",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        _ => "",
    }
}

/// Statuses of nginx's own are sent as ones that clients know.
pub fn sent_status(status: u16) -> u16 {
    if matches!(status, 494..=498) { 400 } else { status }
}

/// The page of a status; `None` where nginx has none.
pub fn page(status: u16, software: &[u8]) -> Option<Vec<u8>> {
    let reason = match reason(status) {
        _ if status < 300 => return None,
        "" => return None,
        reason => reason,
    };
    let title = match status {
        302 => "302 Found".to_owned(),
        401 => "401 Authorization Required".to_owned(),
        _ => format!("{} {reason}", sent_status(status)),
    };
    let (heading, explained) = match status {
        494..=497 => ("400 Bad Request".to_owned(), format!("<center>{reason}</center>\r\n")),
        _ => (title.clone(), String::new()),
    };
    let software = String::from_utf8_lossy(software);
    Some(
        format!(
            "<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{heading}</h1></center>\r\n\
             {explained}<hr><center>{software}</center>\r\n</body>\r\n</html>\r\n"
        )
        .into_bytes(),
    )
}
