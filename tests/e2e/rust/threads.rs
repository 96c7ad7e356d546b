// Threads, channels, panics that unwind and are caught, child processes, and a TCP connection with itself.
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::{mpsc, Arc, Condvar, Mutex};
use std::{env, panic, process, thread};

struct Guard(Arc<Mutex<usize>>);

impl Drop for Guard {
    fn drop(&mut self) {
        *self.0.lock().unwrap() += 1;
    }
}

fn threads() {
    let (send, receive) = mpsc::channel();
    let handles: Vec<_> = (0..16u64)
        .map(|i| {
            let send = send.clone();
            thread::spawn(move || {
                for j in 0..100 {
                    send.send(i * j).unwrap();
                }
            })
        })
        .collect();
    drop(send);
    let total: u64 = receive.iter().sum();
    for handle in handles {
        handle.join().unwrap();
    }
    assert_eq!(total, 120 * 4950);
}

fn panics() {
    let dropped = Arc::new(Mutex::new(0));
    panic::set_hook(Box::new(|_| {}));
    for i in 0..20 {
        let inner = dropped.clone();
        let result = panic::catch_unwind(move || {
            let _guard = Guard(inner);
            if process::id() > 0 {
                panic!("number {}", i);
            }
        });
        assert_eq!(result.unwrap_err().downcast_ref::<String>().unwrap(), &format!("number {}", i));
    }
    let inner = dropped.clone();
    let joined = thread::spawn(move || {
        let _guard = Guard(inner);
        panic!("in a thread");
    })
    .join();
    assert!(joined.is_err());
    assert_eq!(*dropped.lock().unwrap(), 21);
    let _ = panic::take_hook();
}

fn ping_pong() {
    let pair = Arc::new((Mutex::new(0u32), Condvar::new()));
    let other = pair.clone();
    let handle = thread::spawn(move || {
        for _ in 0..500 {
            let mut turn = other.0.lock().unwrap();
            while *turn % 2 == 0 {
                turn = other.1.wait(turn).unwrap();
            }
            *turn += 1;
            other.1.notify_one();
        }
    });
    for _ in 0..500 {
        let mut turn = pair.0.lock().unwrap();
        while *turn % 2 == 1 {
            turn = pair.1.wait(turn).unwrap();
        }
        *turn += 1;
        pair.1.notify_one();
    }
    handle.join().unwrap();
    assert_eq!(*pair.0.lock().unwrap(), 1000);
}

fn children() {
    let this = env::args().next().unwrap();
    for i in 0..5 {
        let out = Command::new(&this).arg(i.to_string()).output().unwrap();
        assert_eq!(out.status.code(), Some(50 + i));
        assert_eq!(out.stdout, format!("child {}\n", i).into_bytes());
    }
}

fn network() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut text = Vec::new();
        stream.read_to_end(&mut text).unwrap();
        text
    });
    TcpStream::connect(address).unwrap().write_all(&[7u8; 100_000]).unwrap();
    assert_eq!(server.join().unwrap().len(), 100_000);
}

fn main() {
    if let Some(argument) = env::args().nth(1) {
        println!("child {}", argument);
        process::exit(50 + argument.parse::<i32>().unwrap());
    }
    threads();
    panics();
    ping_pong();
    children();
    network();
    println!("ok threads");
}
