//! Lines as they appear in the file.

use super::*;
use crate::conf::template::Template;
use crate::conf::variables::Variable;

struct Request;

impl Facts for Request {
    fn value(&self, variable: &Variable, out: &mut Vec<u8>) -> bool {
        match variable {
            Variable::Uri => out.extend_from_slice(b"/a\"b\\c\x01\xff"),
            Variable::Host => {}
            _ => return false,
        }
        true
    }
}

fn format(escape: Escape) -> Arc<LogFormat> {
    let text = |text: &str| Part::Text(text.as_bytes().into());
    let parts = [
        text("\"u\":\""),
        Part::Variable(Variable::Uri),
        text("\" h="),
        Part::Variable(Variable::Host),
        text(" s="),
        Part::Variable(Variable::RemoteUser),
    ];
    Arc::new(LogFormat { name: "x".into(), escape, line: Template::new(parts) })
}

fn line(escape: Escape) -> Vec<u8> {
    let mut out = b"kept\"".to_vec();
    render(&format(escape), &Request, &mut out);
    out.split_off(5)
}

#[test]
fn values_cannot_break_out_of_their_place() {
    assert_eq!(line(Escape::Default), b"\"u\":\"/a\\x22b\\x5Cc\\x01\\xFF\" h= s=-\n");
    assert_eq!(line(Escape::Json), b"\"u\":\"/a\\\"b\\\\c\\u0001\xff\" h= s=\n");
    assert_eq!(line(Escape::None), b"\"u\":\"/a\"b\\c\x01\xff\" h= s=\n");
}

#[tokio::test(start_paused = true)]
async fn lines_are_written_when_due_and_before_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let path: Arc<Path> = folder.path().join("access.log").into();
    let files = Arc::new(LogFiles::default());
    let _held = files.open(std::slice::from_ref(&path)).unwrap();
    let log = AccessLog {
        target: LogTarget::File(path.clone()),
        format: format(Escape::Default),
        buffer_len: None,
        flush: None,
        gzip: None,
        condition: None,
    };
    let journal = Journal::new(files.clone());
    let lines = || std::fs::read_to_string(&path).unwrap().lines().count();
    journal.write(std::slice::from_ref(&log), &Request);
    assert_eq!(lines(), 0);
    let _ = tokio::time::timeout(BATCH_DELAY * 2, journal.run()).await;
    assert_eq!(lines(), 1);
    journal.write(std::slice::from_ref(&log), &Request);
    std::fs::rename(&path, folder.path().join("old.log")).unwrap();
    files.reopen();
    drop(journal);
    assert_eq!(lines(), 1, "the new file has what came after");
    let unwanted = AccessLog { condition: Some(Template::text(b"0")), ..log };
    let journal = Journal::new(files);
    journal.write(&[unwanted], &Request);
    drop(journal);
    assert_eq!(lines(), 1);
}

fn logging(path: &Arc<Path>, buffer_len: Option<usize>) -> [AccessLog; 1] {
    let (target, format) = (LogTarget::File(path.clone()), format(Escape::Default));
    [AccessLog { target, format, buffer_len, flush: None, gzip: None, condition: None }]
}

#[tokio::test(start_paused = true)]
async fn files_are_open_while_a_configuration_holds_them_and_a_refused_one_takes_none_away() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| -> Arc<Path> { folder.path().join(name).into() };
    let (old, new) = (path("old.log"), path("new.log"));
    let files = LogFiles::default();
    let held = files.open(std::slice::from_ref(&old)).unwrap();
    assert!(files.open(&[new.clone(), path("missing/x.log")]).is_err());
    drop(files.open(std::slice::from_ref(&new)).unwrap());
    assert!(files.find(&old).is_some() && files.find(&new).is_none());
    std::fs::remove_file(&old).unwrap();
    files.reopen();
    assert!(old.exists() && std::fs::read(&new).unwrap().is_empty());
    drop(held);
    assert!(files.find(&old).is_none());
}

#[tokio::test(start_paused = true)]
async fn the_buffer_of_the_newest_configuration_counts_while_an_old_one_still_writes() {
    let folder = tempfile::tempdir().unwrap();
    let path: Arc<Path> = folder.path().join("access.log").into();
    let files = Arc::new(LogFiles::default());
    let _held = files.open(std::slice::from_ref(&path)).unwrap();
    let journal = Journal::new(files);
    let lines = || std::fs::read_to_string(&path).unwrap().lines().count();
    journal.write(&logging(&path, Some(1 << 20)), &Request);
    journal.start_over();
    assert_eq!(lines(), 1);
    journal.write(&logging(&path, Some(1 << 20)), &Request);
    journal.write(&logging(&path, Some(1)), &Request);
    assert_eq!(lines(), 2, "it is over its buffer at once");
    journal.write(&logging(&path, None), &Request);
    journal.flush_live();
    assert_eq!(lines(), 3, "it has no buffer");
    drop(journal);
    assert_eq!(lines(), 4);
}

proptest::proptest! {
    #[test]
    fn escaped_json_is_a_json_string(value in proptest::collection::vec(0_u8..0x80, 0..40)) {
        let mut out = b"\"".to_vec();
        out.extend_from_slice(&value);
        escape_from(Escape::Json, 1, &mut out);
        out.push(b'"');
        let parsed: String = serde_json::from_slice(&out).unwrap();
        proptest::prop_assert_eq!(parsed.as_bytes(), &value[..]);
    }
}
