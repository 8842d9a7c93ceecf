//! What only a test inside the crate can see: a loop that dies by a fault of our own, or is behind, while others live
//! on; threads whose end takes time; and how permits are counted.

mod uploads;

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::*;
use crate::group::{CutOff, Exit, Group, Outcome};
use crate::http::{Handler, Request, Response};
use crate::sync::Ordering;
use inbox::Message;

/// Only a hang takes this long.
const HANG: Duration = Duration::from_secs(30);

const PING: &str = "GET /ping HTTP/1.1\r\nHost: test\r\n\r\n";

/// A barrier at which handlers wait until the test opens it.
#[derive(Default)]
struct Barrier {
    is_open: Mutex<bool>,
    opened: Condvar,
}

impl Barrier {
    fn pass(&self) {
        let is_open = self.is_open.lock().unwrap();
        // Longer than a client waits for its answer.
        drop(self.opened.wait_timeout_while(is_open, HANG * 2, |is_open| !*is_open).unwrap());
    }

    fn open(&self) {
        *self.is_open.lock().unwrap() = true;
        self.opened.notify_all();
    }

    fn shut(&self) {
        *self.is_open.lock().unwrap() = false;
    }
}

/// A server with two loops. Once one has died, the server is a lame duck.
struct Site {
    shared: Arc<Shared>,
    stop: Stop,
    address: SocketAddr,
    barrier: Arc<Barrier>,
    /// The barrier at which ending threads wait.
    slow: Arc<Slow>,
    /// One message for each handler that reaches the barrier.
    held: Receiver<()>,
    /// How each stream ended.
    ends: Receiver<std::io::Result<()>>,
    group: thread::JoinHandle<Outcome>,
}

impl Site {
    fn start(handlers_max: usize) -> Self {
        Self::start_with_grace(handlers_max, HANG)
    }

    fn start_with_grace(handlers_max: usize, grace: Duration) -> Self {
        let config = Config { loops: 2, handlers_max, queue_timeout: HANG, ..Config::default() };
        let server = Server::bind("127.0.0.1:0", config).unwrap();
        let Some(LocalAddress::Tcp(address)) = server.addresses().next().cloned() else { panic!("no TCP address") };
        let (holding, held) = mpsc::channel();
        let (ending, ends) = mpsc::channel();
        let barrier = Arc::<Barrier>::default();
        let slow = Arc::<Slow>::default();
        let handler = routes(&barrier, Arc::clone(&slow), holding, ending);
        let (sender, shared) = mpsc::channel();
        let mut group = Group::new();
        group.lame_duck(HANG);
        let stop = group.stop();
        group.add("http", move |stop| {
            let (event_loops, shared) = server.assemble(handler, stop)?;
            sender.send(Arc::clone(&shared))?;
            handoff::supervise(event_loops, &shared)
        });
        let group = thread::spawn(move || group.run(grace));
        let shared = shared.recv_timeout(HANG).unwrap();
        Self { shared, stop, address, barrier, slow, held, ends, group }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(HANG)).unwrap();
        stream
    }

    /// Connects `count` clients and has each answered twice; both loops then have some of them.
    fn spread(&self, count: usize) -> Vec<TcpStream> {
        let mut clients: Vec<_> = (0..count).map(|_| self.connect()).collect();
        for _ in 0..2 {
            assert!(clients.iter_mut().all(is_answered));
        }
        let loops = self.shared.loops.iter().map(|handle| handle.connections.load(Ordering::Relaxed));
        assert!(loops.into_iter().all(|connections| connections > 0));
        clients
    }

    /// Has a loop call `code`, in order with its other messages.
    fn push(&self, index: usize, code: impl FnOnce() + Send + 'static) -> Result<(), &'static str> {
        self.shared.loops[index].inbox.push(Message::Ask(Box::new(|_| code()))).map_err(|_| "it is closed")
    }

    fn kill(&self, index: usize) {
        self.push(index, || panic!("a fault of our own")).unwrap();
        poll(|| (self.shared.loops[index].connections.load(Ordering::Relaxed) >= usize::MAX / 2).then_some(()));
    }

    /// Keeps a loop from going on until the sender is dropped, as if it had counted this meanwhile.
    fn hold_up(&self, index: usize, counted: Option<CutOff>) -> Sender<()> {
        let (begin, begun) = mpsc::channel();
        let (sender, dropped) = mpsc::channel();
        let code = move || {
            begin.send(()).unwrap();
            assert!(dropped.recv_timeout(HANG).is_err());
        };
        self.push(index, code).unwrap();
        begun.recv_timeout(HANG).unwrap();
        *self.shared.loops[index].counted.lock() = counted;
        sender
    }

    /// Stops the server, which cannot wait for loops that are held up, and returns how it has left.
    fn leave(self) -> Exit {
        self.stop.trigger(crate::stop::Cause::Signal);
        self.stop.tell();
        let outcome = self.group.join().unwrap();
        outcome.exits().next().unwrap().1.clone()
    }

    /// New clients are served by the other loop, and the outcome of the stop names the fault.
    fn expect_alive(self) -> Exit {
        for _ in 0..20 {
            let mut client = self.connect();
            assert!(is_answered(&mut client) && is_answered(&mut client));
        }
        self.stop.tell();
        let outcome = self.group.join().unwrap();
        assert_eq!(outcome.exit_code(), 1, "{outcome:?}");
        let cause = outcome.cause().unwrap().to_string();
        assert!(
            cause.starts_with("event loop ") && cause.ends_with(" failed: panicked: a fault of our own"),
            "{cause}"
        );
        outcome.exits().next().unwrap().1.clone()
    }
}

/// A thread-local value whose drop waits until the second barrier is open.
struct SlowEnd(Arc<Slow>);

#[derive(Default)]
struct Slow {
    begun: AtomicUsize,
    barrier: Barrier,
}

impl Drop for SlowEnd {
    fn drop(&mut self) {
        self.0.begun.fetch_add(1, Ordering::SeqCst);
        self.0.barrier.pass();
    }
}

thread_local! {
    static LOCAL: RefCell<Option<SlowEnd>> = const { RefCell::new(None) };
}

fn routes(
    barrier: &Arc<Barrier>,
    slow: Arc<Slow>,
    holding: Sender<()>,
    ending: Sender<std::io::Result<()>>,
) -> impl Handler {
    let at = Arc::clone(barrier);
    let hold = Arc::new(move || {
        let _ = holding.send(());
        at.pass();
    });
    move |request: &Request<'_>| match request.raw_path() {
        "/hold" => {
            hold();
            Response::text("held")
        }
        "/local" => {
            LOCAL.set(Some(SlowEnd(Arc::clone(&slow))));
            hold();
            Response::text("kept")
        }
        "/stream" => {
            let (hold, ending) = (Arc::clone(&hold), ending.clone());
            Response::stream("text/plain", move |out| {
                hold();
                let end = out.write_all(b"body").and_then(|()| out.flush());
                let _ = ending.send(end);
                Ok(())
            })
        }
        _ => Response::text("pong"),
    }
}

/// Polls for a condition that has no event.
fn poll<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    while begun.elapsed() < HANG {
        if let Some(found) = look() {
            return found;
        }
        thread::sleep(Duration::from_millis(2));
    }
    panic!("it never comes");
}

/// True if the client gets an answer, false if the connection ends.
fn is_answered(client: &mut TcpStream) -> bool {
    client.write_all(PING.as_bytes()).is_ok() && is_served(client)
}

fn is_served(client: &mut TcpStream) -> bool {
    let mut bytes = [0; 4096];
    match client.read(&mut bytes) {
        Ok(count) => bytes[..count].starts_with(b"HTTP/1.1 200 OK\r\n"),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => false,
        Err(error) => panic!("nothing came: {error}"),
    }
}

#[test]
fn what_comes_while_a_loop_is_busy_with_what_came_before_is_not_forgotten() {
    let site = Site::start(64);
    let (begin, begun) = mpsc::channel();
    // Keeps the loop busy until the sender is dropped, and then for so long that no other work begins in the same pass.
    let busy = || {
        let (begin, (sender, dropped)) = (begin.clone(), mpsc::channel::<()>());
        let code = move || {
            begin.send(()).unwrap();
            assert!(dropped.recv_timeout(HANG).is_err());
            thread::sleep(Duration::from_millis(1));
        };
        site.push(0, code).unwrap();
        sender
    };
    let wait = || begun.recv_timeout(HANG).unwrap();
    let first = busy();
    wait();
    // The next pass takes both, and has time for one.
    let (second, third) = (busy(), busy());
    drop(first);
    wait();
    let fourth = busy();
    drop(second);
    wait();
    drop(third);
    wait();
    drop(fourth);
    site.stop.trigger(crate::stop::Cause::Signal);
    site.stop.tell();
    assert_eq!(site.group.join().unwrap().exit_code(), 0);
}

#[test]
fn connections_on_their_way_from_loop_to_loop_stay_counted() {
    const COUNT: usize = 6;
    let site = Site::start(64);
    let (begin, begun) = mpsc::channel();
    let (sender, dropped) = mpsc::channel::<()>();
    site.push(1, move || {
        begin.send(()).unwrap();
        assert!(dropped.recv_timeout(HANG).is_err());
    })
    .unwrap();
    begun.recv_timeout(HANG).unwrap();
    // The other loop accepts and answers all, and gives some of them away.
    let mut clients: Vec<_> = (0..COUNT).map(|_| site.connect()).collect();
    assert!(clients.iter_mut().all(is_answered));
    poll(|| (site.shared.loops[1].connections.load(Ordering::Relaxed) >= 2).then_some(()));
    assert_eq!(site.shared.connections.load(Ordering::Relaxed), COUNT);
    drop(sender);
    assert!(clients.iter_mut().all(is_answered));
    assert_eq!(site.shared.connections.load(Ordering::Relaxed), COUNT);
    drop(clients);
    poll(|| (site.shared.connections.load(Ordering::Relaxed) == 0).then_some(()));
    site.stop.trigger(crate::stop::Cause::Signal);
    site.stop.tell();
    assert_eq!(site.group.join().unwrap().exit_code(), 0);
}

#[test]
fn a_loop_that_ends_after_its_time_harms_nobody() {
    let site = Site::start_with_grace(64, Duration::from_millis(10));
    let sender = site.hold_up(0, None);
    site.stop.trigger(crate::stop::Cause::Signal);
    site.stop.tell();
    assert_eq!(site.group.join().unwrap().exit_code(), 124);
    let (panicked, panics) = mpsc::channel();
    let others = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let _ = panic.location().filter(|at| at.file().ends_with("workers.rs")).map(|at| panicked.send(at.to_string()));
        others(panic);
    }));
    drop(sender);
    // Its thread was the last to hold this.
    poll(|| (Arc::strong_count(&site.shared) == 1).then_some(()));
    assert_eq!(panics.try_iter().collect::<Vec<_>>(), Vec::<String>::new());
}

#[test]
fn loops_that_do_not_end_are_reported_with_what_they_have_counted() {
    let counted = || Some(CutOff { owed: 2, details: vec!["two".to_owned()] });
    for (counts, owed, details) in [
        ([None, None], 0, vec!["unknown, since 2 event loops did not end in time"]),
        (
            [counted(), None],
            2,
            vec![
                "two",
                "unknown, since 1 event loop did not end in time",
                "1 event loop had no time to close connections",
            ],
        ),
        ([counted(), counted()], 4, vec!["two", "two", "2 event loops had no time to close connections"]),
    ] {
        let site = Site::start_with_grace(64, Duration::from_millis(10));
        let [first, second] = counts;
        let held = [site.hold_up(0, first), site.hold_up(1, second)];
        let details = details.into_iter().map(ToOwned::to_owned).collect();
        assert_eq!(site.leave(), Exit::CutOff(CutOff { owed, details }));
        drop(held);
    }
}

#[test]
fn what_a_server_owes_is_said_beside_its_fault() {
    let site = Site::start_with_grace(64, Duration::from_millis(10));
    let held = site.hold_up(1, Some(CutOff { owed: 1, details: Vec::new() }));
    site.kill(0);
    let exit = site.leave();
    drop(held);
    let Exit::Failed(error) = &exit else { panic!("{exit:?}") };
    assert!(error.starts_with("panicked: a fault of our own; ") && error.contains('1'), "{error}");
}

#[test]
fn a_loop_that_has_died_gets_no_connections_and_its_clients_see_the_end() {
    let site = Site::start(64);
    let mut clients = site.spread(12);
    site.kill(0);
    // About half of the clients were on that loop; each of these reads the end of its connection.
    let answered = clients.iter_mut().filter_map(|client| is_answered(client).then_some(())).count();
    assert!((1..12).contains(&answered), "{answered} of 12");
    assert!(site.push(0, || {}).is_err(), "nobody gives it anything");
    assert_eq!(site.shared.connections.load(Ordering::Relaxed), answered);
    assert_eq!(site.expect_alive(), Exit::Failed("panicked: a fault of our own".to_owned()));
}

#[test]
fn no_request_queues_behind_those_of_a_loop_that_has_died() {
    let site = Site::start(2);
    let mut clients = site.spread(12);
    // Both permits are taken. The loop with the oldest queued request dies.
    for client in &mut clients[..2] {
        client.write_all(PING.replace("ping", "hold").as_bytes()).unwrap();
        site.held.recv_timeout(HANG).unwrap();
    }
    clients[2].write_all(PING.as_bytes()).unwrap();
    let index = poll(|| site.shared.permits.next_in_line());
    for client in &mut clients[3..] {
        client.write_all(PING.as_bytes()).unwrap();
    }
    site.kill(index);
    site.barrier.open();
    let served = clients.iter_mut().filter_map(|client| is_served(client).then_some(())).count();
    assert!((1..12).contains(&served), "{served} of 12");
    site.expect_alive();
}

#[test]
fn a_stream_whose_loop_has_died_ends_when_it_begins_to_write() {
    let site = Site::start(64);
    let mut clients = site.spread(12);
    for client in &mut clients {
        client.write_all(PING.replace("ping", "stream").as_bytes()).unwrap();
        site.held.recv_timeout(HANG).unwrap();
    }
    site.kill(0);
    site.barrier.open();
    let ends: Vec<_> = clients.iter().map(|_| site.ends.recv_timeout(HANG).unwrap()).collect();
    let whole = ends.iter().filter(|end| end.is_ok()).count();
    assert!((1..12).contains(&whole), "{ends:?}");
    site.expect_alive();
}

#[test]
fn threads_whose_end_takes_its_time_do_not_stop_the_hand_off() {
    let site = Site::start(64);
    let mut clients = site.spread(6);
    let ask = |clients: &mut [TcpStream], path: &str| {
        for client in clients {
            client.write_all(PING.replace("ping", path).as_bytes()).unwrap();
            site.held.recv_timeout(HANG).unwrap();
            // The other clients of the same loop are answered too.
            for _ in 0..2 {
                assert!(is_answered(&mut site.connect()));
            }
        }
    };
    // Each handler has a thread of its own; threads without a task end soon.
    ask(&mut clients, "local");
    site.barrier.open();
    assert!(clients.iter_mut().all(is_served));
    poll(|| (site.slow.begun.load(Ordering::SeqCst) > 1).then_some(()));
    // The next handlers need new threads.
    site.barrier.shut();
    ask(&mut clients, "hold");
    site.barrier.open();
    assert!(clients.iter_mut().all(is_served));
    site.slow.barrier.open();
    site.stop.trigger(crate::stop::Cause::Signal);
    site.stop.tell();
    drop(clients);
    assert_eq!(site.group.join().unwrap().exit_code(), 0);
}

// ---- Permits -------------------------------------------------------------------------------------------------------

/// Two loops, at most two handlers, one of which is displaced: one permit is left.
#[test]
fn a_permit_goes_to_the_request_that_has_waited_longest() {
    let (permits, now) = (Permits::new(2, 2), sync::now());
    let since = |ms| Some(now + Duration::from_millis(ms));
    permits.displace();
    assert!(permits.enter(0) && permits.running() == 2);
    // In vain, and so it does not count.
    assert!(!permits.enter(1) && permits.running() == 2);
    assert_eq!(permits.enter_waiting(1), Err(None));
    permits.words[0].withdraw();
    assert_eq!(permits.running(), 1);
    // The other loop's request is older, and overtaken neither by one that has just come nor by a younger one.
    assert!(permits.publish(1, since(2)) && permits.publish(0, since(3)) && !permits.publish(0, since(3)));
    assert_eq!(permits.next_in_line(), Some(1));
    assert!(!permits.enter(0) && permits.enter_waiting(0) == Err(Some(1)));
    assert_eq!((permits.enter_waiting(1), permits.running()), (Ok(()), 2));
    assert!(permits.publish(1, None) && permits.next_in_line() == Some(0));
    assert_eq!(permits.enter_waiting(0), Err(None));
    permits.replace();
    assert_eq!((permits.enter_waiting(0), permits.running()), (Ok(()), 2));
    // Nobody waits any more.
    assert!(permits.publish(0, None) && !permits.publish(0, None));
    permits.words[0].withdraw();
    assert!(permits.next_in_line().is_none() && permits.enter(0));
}

/// Whoever knows an earlier lending of a loop has no claim to it.
#[test]
fn each_lending_of_a_loop_has_a_number_of_its_own() {
    let permits = Permits::new(1, 1);
    let (word, mut lendings) = (&permits.words[0], Vec::new());
    for _ in 0..100 {
        word.announce();
        word.withdraw();
        assert!(!word.load().is_busy());
        word.announce();
        let first = word.lend();
        assert!(first.is_lent() && word.borrow(first) && !word.borrow(first) && !word.claim(first));
        assert!(word.load().is_busy() && !word.load().is_lent());
        let second = word.lend();
        assert!(!word.borrow(first) && !word.claim(first));
        assert!(word.claim(second) && !word.load().is_busy());
        for lending in [first, second] {
            assert!(!lendings.contains(&lending), "{lending:?}");
            lendings.push(lending);
        }
    }
}
