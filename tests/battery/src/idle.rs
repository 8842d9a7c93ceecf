//! Idle connections, very many of them: they cost no time and little memory, and each is there when it asks again.

use std::thread;
use std::time::{Duration, Instant};

use crate::clients::Ask;
use crate::ground::Ground;
use crate::server::Server;
use crate::{Report, Result};

/// Of the time that they rest, and whatever that is: a wake-up of each thread or two.
const CPU_SHARE_MAX: f64 = 0.001;
const CPU_MAX: Duration = Duration::from_millis(10);
/// Of each connection, at most.
const BYTES_MAX: u64 = 1024;
/// What a table, an allocator and threads take once, however many there are.
const ONCE_KB: u64 = 1024;

pub(crate) fn run(ground: &Ground) -> Result<Report> {
    let (count, time) = ground.form((1000, Duration::from_secs(2)), (10_000, Duration::from_secs(600)));
    let server = Server::start(ground.timed("idle=7200").args(["--max-connections", "20000"]))?;
    for _ in 0..20 {
        Ask::Ping.once(server.address)?;
    }
    let (base_kb, descriptors, mut faults) = (server.resident_kb()?, server.descriptors()?, Vec::new());
    let mut clients = (0..count).map(|_| server.client()).collect::<Result<Vec<_>>>()?;
    let mut ask_all = |when: &str| -> u64 {
        let asked = clients.iter_mut().map(|client| Ask::Ping.on(client));
        let wrong: Vec<_> = asked.filter(|answer| !matches!(answer, Ok((200, false)))).collect();
        faults.extend(wrong.iter().take(3).map(|answer| format!("{when}: {answer:?}")));
        (count - wrong.len()) as u64
    };
    let first = ask_all("the first request");
    // Whatever is done a moment after the last answer.
    thread::sleep(Duration::from_millis(500));
    let (cpu, began) = (server.cpu()?, Instant::now());
    thread::sleep(time);
    let (cpu, rested) = (server.cpu()? - cpu, began.elapsed());
    let taken_kb = server.resident_kb()?.saturating_sub(base_kb);
    let second = ask_all("the request after the rest");
    drop(clients);

    let cpu_max = CPU_MAX + rested.mul_f64(CPU_SHARE_MAX);
    if cpu > cpu_max {
        faults.push(format!("{cpu:?} of CPU in {rested:?} of rest, and {cpu_max:?} may be"));
    }
    let kb_max = ONCE_KB + BYTES_MAX * count as u64 / 1024;
    if taken_kb > kb_max {
        faults.push(format!("{taken_kb} kB for {count} connections, and {kb_max} may be"));
    }
    if first + second < 2 * count as u64 {
        faults.push(format!("of {count}, {first} were answered at first, and {second} after the rest"));
    }
    server.expect_descriptors(descriptors)?;
    server.expect_clean_stop(&mut faults)?;
    let of_each = taken_kb * 1024 / count as u64;
    let figures = format!(
        "{second} answered after the rest; CPU meanwhile {:.1} ms; memory {of_each} bytes each, over {base_kb} kB",
        cpu.as_secs_f64() * 1e3
    );
    let done = format!("{count} connections idle for {} s, then a request on each", time.as_secs());
    Ok(Report { done, figures, faults, ..Report::default() })
}
