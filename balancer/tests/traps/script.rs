//! Text that a configuration makes of what clients say: as long as it should be, and what it should be (nginx's script
//! engine overflowed three times in 2026), and names of headers that some readers cut at 256 bytes (CVE-2021-40346).

use crate::common::{Balancer, Origin};

fn decoded(text: &str) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((first, behind)) = rest.split_first() {
        let digits = behind.get(..2).filter(|_| *first == b'%');
        let byte = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        out.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &behind[2..] } else { behind };
    }
    out
}

#[test]
fn captures_are_whole_in_paths_arguments_and_variables_however_long_and_odd() {
    let balancer = Balancer::start(
        "map $arg_q $mapped { default none; \"~^(?<named>.*)z$\" \"<$named>\"; }\n\
         server { listen 127.0.0.1:PORT; large_client_header_buffers 4 64k;\n\
         location /old/ { rewrite ^/old/(.*)$ /new?moved=true&p=$1; set $kept $1; set $twice $1$1;\n\
           return 200 \"$arg_p\\n$kept\\n$twice\"; }\n\
         location /to/ { rewrite ^/to/(.*)$ /$1/$1/$1 redirect; }\n\
         location /map { return 200 $mapped; } }",
    );
    for unit in
        ["a", "+", "%2B", "%25", "%26", "%20", "%3F", "%23", "%C3%A9", "%25%26", "\u{e9}", "%7F", "%FF", "~"]
    {
        for count in [0, 1, 2, 85, 1000, 5000] {
            let text = unit.repeat(count);
            let mut client = balancer.client();
            let plain = decoded(&text);
            let wanted = String::from_utf8_lossy(&plain).into_owned();
            let answer = client.get(&format!("/old/{text}"));
            assert_eq!(answer.status, 200, "{unit} {count}");
            let [p, kept, twice] = answer.body.split('\n').collect::<Vec<_>>()[..] else {
                panic!("{unit} {count}: {}", answer.body)
            };
            assert_eq!(String::from_utf8_lossy(&decoded(p)), wanted, "{unit} {count}: in arguments");
            assert_eq!(kept, wanted, "{unit} {count}");
            assert_eq!(twice, wanted.repeat(2), "{unit} {count}");
            let location = client.get(&format!("/to/{text}")).header("location").unwrap().to_owned();
            let path = location.split_once("//").unwrap().1.split_once('/').unwrap().1;
            assert_eq!(
                String::from_utf8_lossy(&decoded(path)),
                [wanted.as_str(); 3].join("/"),
                "{unit} {count}: in a redirect"
            );
            let mapped = client.get(&format!("/map?q={text}z")).body;
            assert_eq!(mapped, format!("<{text}>"), "{unit} {count}: in a map");
        }
    }
}

#[test]
fn a_name_longer_than_any_readers_count_is_no_other_name() {
    let origin = Origin::scripted(|served| {
        while let Some((_, body)) = served.read_request_with_body() {
            let text = String::from_utf8(body).unwrap();
            served.send(&format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len()));
        }
    });
    let balancer = Balancer::before(&[&origin], "");
    let mut client = balancer.client();
    let lens = (200..300).chain([1000, 7000]);
    for len in lens {
        for name in ["Content-Length", "Transfer-Encoding", "Host", "Connection"] {
            let long = format!("{name}0{}", "a".repeat(len));
            client
                .send(&format!("POST / HTTP/1.1\r\nHost: a\r\n{long}: 0\r\nContent-Length: 5\r\n\r\nwhole"));
            assert_eq!(client.response().body, "whole", "{len} {name}");
            assert!(origin.seen().last().unwrap().contains(&format!("\r\n{long}: 0\r\n")), "{len} {name}");
        }
    }
}
