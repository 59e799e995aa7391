//! Commands against a server that means ill: answers without an end, by size and by time.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::run;

/// The commands that read a whole answer.
const COMMANDS: [&[&str]; 5] =
    [&["stats"], &["connections"], &["kick", "--session", "s"], &["publish", "jobs", "{}"], &["health"]];

/// Answers every request with what `answer` writes, until the client has gone.
fn server(answer: fn(&mut TcpStream) -> std::io::Result<()>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            std::thread::spawn(move || {
                // The request is small; what is left of it disturbs nobody.
                let _ = socket.read(&mut [0; 16 << 10]);
                let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n");
                // Fails when the client has enough of it.
                let _ = answer(&mut socket);
            });
        }
    });
    address
}

#[test]
fn an_answer_without_an_end_is_read_up_to_the_limit_and_the_error_names_it() {
    let address = server(|socket| {
        let blanks = vec![b' '; 1 << 20];
        socket.write_all(b"{\"nodes\":[")?;
        loop {
            socket.write_all(&blanks)?;
        }
    });
    let url = format!("http://{address}");
    for command in COMMANDS {
        let ran = run(&[command, &["--url", &url]].concat(), &[]);
        assert_eq!(ran.code, 1, "{command:?}");
        assert!(ran.stderr.contains("32 MiB") && ran.stderr.contains(&url), "{command:?}: {}", ran.stderr);
    }
}

#[test]
fn an_answer_that_drips_for_ever_is_given_up_and_the_error_names_the_address_and_the_time() {
    let address = server(|socket| {
        loop {
            socket.write_all(b" ")?;
            // The pause is what is tested: an answer that goes on, far below any limit of size, until it is given up.
            // Nothing is waited for here; the test waits for the command's own time.
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    let url = format!("http://{address}");
    let began = Instant::now();
    let ran = run(&["health", "--url", &url], &[]);
    assert!(began.elapsed() >= Duration::from_secs(3), "it has its time");
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr.contains(&format!("{url} has not given its whole answer within 3s")),
        "{}",
        ran.stderr
    );
}

#[test]
fn the_words_of_a_refused_stream_are_not_waited_for_without_an_end() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let _ = socket.read(&mut [0; 16 << 10]);
        let _ = socket.write_all(b"HTTP/1.1 403 Forbidden\r\n\r\n{\"error\":\"never said");
        // Until the client has gone.
        let _ = socket.read_to_end(&mut Vec::new());
    });
    let ran = run(&["subscribe", "jobs", "--url", &format!("http://{address}")], &[]);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("refused: 403 Forbidden"), "{}", ran.stderr);
}
