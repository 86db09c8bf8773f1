use proptest::prelude::*;

use super::*;

/// Few rounds: the tests are about the exchange.
const ROUNDS: u32 = 4;

fn verifier(password: &str) -> Verifier {
    Verifier::make(password, b"0123456789abcdef", ROUNDS)
}

/// Runs both sides against each other.
fn exchange(secret: Secret, verifier: Verifier) -> Result<Keys, Error> {
    let mut client = Client::new(secret, nonce([1; NONCE_LEN]));
    let mut server = Server::new(verifier, nonce([2; NONCE_LEN]));
    let challenge = server.challenge(client.first().as_bytes())?;
    let answer = client.answer(challenge.as_bytes())?;
    let (last, keys) = server.verify(answer.as_bytes())?;
    assert!(!client.is_done());
    client.finish(last.as_bytes())?;
    assert!(client.is_done());
    Ok(keys)
}

fn password(text: &str) -> Secret {
    Secret::Password(text.to_string())
}

/// The example of RFC 7677, section 3. The user name is part of the signed text, so the client's half is replayed.
#[test]
fn the_example_of_the_rfc_is_accepted() {
    let salt = decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
    let verifier = Verifier::make("pencil", &salt, 4096);
    let mut server = Server::new(verifier, "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0".to_string());
    let challenge = server.challenge(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO").unwrap();
    assert_eq!(
        challenge,
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    );
    let answer = b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    assert_eq!(server.verify(answer).unwrap().0, "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
}

#[test]
fn the_right_password_logs_in_and_its_keys_do_too() {
    let keys = exchange(password("pencil"), verifier("pencil")).unwrap();
    assert_eq!(verifier("pencil").keys("pencil"), Ok(keys.clone()));
    assert_eq!(exchange(Secret::Keys(keys.clone()), verifier("pencil")), Ok(keys));
}

#[test]
fn a_wrong_password_and_a_mock_verifier_fail_alike() {
    assert_eq!(exchange(password("pen"), verifier("pencil")), Err(Error::WrongProof));
    let mock = Verifier::mock("nobody", b"process secret", ROUNDS);
    assert_eq!(mock.salt, Verifier::mock("nobody", b"process secret", ROUNDS).salt);
    assert_ne!(mock.salt, Verifier::mock("somebody", b"process secret", ROUNDS).salt);
    assert_eq!(mock.salt.len(), 16);
    assert_eq!(exchange(password("pencil"), mock), Err(Error::WrongProof));
}

#[test]
fn a_verifier_is_read_again() {
    let made = verifier("pencil");
    assert_eq!(Verifier::parse(&made.to_string()), Some(made));
    for text in ["", "SCRAM-SHA-256$", "SCRAM-SHA-256$4096:$:", "SCRAM-SHA-256$0:AAAA$AAAA:AAAA"] {
        assert_eq!(Verifier::parse(text), None, "{text}");
    }
}

#[test]
fn passwords_are_prepared() {
    // RFC 4013: a soft hyphen is mapped to nothing, a non-breaking space to a space.
    assert!(verifier("I\u{ad}X").accepts(b"IX"));
    assert!(verifier("a\u{a0}b").accepts(b"a b"));
    // What cannot be prepared is taken as it is.
    assert!(verifier("bell\u{7}").accepts(b"bell\x07"));
    assert!(Verifier::make("x", b"s", ROUNDS) != Verifier::make("y", b"s", ROUNDS));
}

#[test]
fn a_server_that_asks_for_too_much_is_refused() {
    let mut client = Client::new(password("x"), "abc".to_string());
    client.first();
    let answer = |client: &mut Client, challenge: &str| client.answer(challenge.as_bytes()).unwrap_err();
    assert_eq!(answer(&mut client, "r=abcd,s=AAAA,i=2000000000"), Error::Iterations(2_000_000_000));
    assert_eq!(answer(&mut client, "r=abcd,s=AAAA,i=0"), Error::Iterations(0));
    assert_eq!(answer(&mut client, "r=abc,s=AAAA,i=1"), Error::Nonce);
    assert_eq!(answer(&mut client, "r=xabcd,s=AAAA,i=1"), Error::Nonce);
    assert_eq!(answer(&mut client, "r=abcd,s=,i=1"), Error::Malformed("the salt is empty"));
    let long = format!("r=abc{},s=AAAA,i=1", "x".repeat(MAX_MESSAGE_LEN));
    assert_eq!(answer(&mut client, &long), Error::Malformed("too long"));
}

#[test]
fn a_server_that_skips_or_fakes_its_proof_is_found_out() {
    let mut client = Client::new(password("x"), "abc".to_string());
    assert_eq!(client.answer(b"r=abcd,s=AAAA,i=1"), Err(Error::OutOfTurn));
    client.first();
    assert_eq!(client.finish(b"v=AAAA"), Err(Error::OutOfTurn));
    client.answer(b"r=abcd,s=AAAA,i=1").unwrap();
    assert_eq!(client.finish(b"v=AAAA"), Err(Error::WrongSignature));
    assert_eq!(client.finish(b"e=invalid-proof"), Err(Error::Refused));
    assert!(!client.is_done());
}

#[test]
fn a_client_that_breaks_the_exchange_is_refused() {
    let refused =
        |first: &str| Server::new(verifier("x"), "srv".into()).challenge(first.as_bytes()).unwrap_err();
    assert_eq!(refused("p=tls-server-end-point,,n=,r=abc"), Error::ChannelBinding);
    assert_eq!(refused("n,a=admin,n=,r=abc"), Error::AuthorizationIdentity);
    assert!(matches!(refused("n,,m=x,n=,r=abc"), Error::Malformed(_)));
    assert!(matches!(refused("n,,n=,r=a\u{e4}"), Error::Malformed(_)));
    assert!(matches!(refused("n,,n=,r="), Error::Malformed(_)));
    let mut server = Server::new(verifier("x"), "srv".into());
    assert_eq!(server.verify(b"c=biws,r=abcsrv,p=AAAA"), Err(Error::OutOfTurn));
    let mut server = Server::new(verifier("x"), "srv".into());
    server.challenge(b"n,,n=,r=abc").unwrap();
    assert_eq!(server.challenge(b"n,,n=,r=abc"), Err(Error::OutOfTurn));
    assert_eq!(server.verify(b"c=biws,r=other,p=AAAA"), Err(Error::Nonce));
    assert_eq!(server.verify(b"c=biws,r=abcsrv,p=AAAA"), Err(Error::OutOfTurn), "one try only");
    let mut server = Server::new(verifier("x"), "srv".into());
    server.challenge(b"y,,n=,r=abc").unwrap();
    assert_eq!(
        server.verify(b"c=biws,r=abcsrv,p=AAAA"),
        Err(Error::ChannelBinding),
        "another header than before"
    );
}

/// A role may choose its own verifier: one that would take hours to check is not checked (CVE-2026-6669).
#[test]
fn a_verifier_of_too_many_rounds_accepts_nothing() {
    let stored = verifier("x").to_string();
    let (_, rest) = stored.split_once(':').unwrap();
    let endless = Verifier::parse(&format!("SCRAM-SHA-256$4000000000:{rest}")).unwrap();
    assert!(!endless.accepts(b"x"));
}

proptest! {
    #[test]
    fn any_password_that_is_set_logs_in(text in "\\PC{1,24}") {
        prop_assert!(exchange(password(&text), verifier(&text)).is_ok());
    }

    #[test]
    fn no_message_makes_either_side_panic(first in "[nyp,=ram]{0,12}", second in "[rsic,=AB0-9]{0,24}") {
        let mut server = Server::new(verifier("x"), "srv".into());
        let _ = server.challenge(first.as_bytes());
        let _ = server.verify(second.as_bytes());
        let mut client = Client::new(password("x"), "r".into());
        client.first();
        // A count of rounds that the text happens to hold would only make the test slow.
        if !second.contains("i=") {
            let _ = client.answer(second.as_bytes());
        }
        let _ = client.finish(second.as_bytes());
        let _ = Verifier::parse(&second);
    }
}
