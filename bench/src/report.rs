//! Tables of the figures.

use crate::arguments::Compare;
use crate::by_hand::Setting;
use crate::measure::reading::Reading;
use crate::scenario::System;

/// Prints what holds for all scenarios.
pub(crate) fn print_head(arguments: &Compare) {
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    println!(
        "{} rounds of each system by turns, {} s or {} messages each, 256 bytes of JSON, no TLS, {cpus} CPUs",
        arguments.rounds, arguments.seconds, arguments.messages
    );
    println!("rate: min / median / max messages a second; the rest: medians");
}

/// Prints the figures of a scenario.
pub(crate) fn print(scenario: &str, systems: &[System], setting: Setting, readings: &[Reading]) {
    println!("\n{scenario}");
    println!(
        "{:>12} {:>7} {:>7} {:>7} {:>8} {:>8} {:>7} {:>7} {:>7} {:>7} {:>8} {:>6} {:>5}",
        "",
        "min",
        "median",
        "max",
        "p50 ms",
        "p99 ms",
        "client",
        "pg",
        "broker",
        "sum us",
        "commits",
        "WAL B",
        "busy"
    );
    let of = |system: System| readings.iter().filter(move |reading| reading.system == system.name());
    for system in systems {
        let median_of = |figure: fn(&Reading) -> f64| median(of(*system).map(figure));
        let rates = || of(*system).map(|reading| reading.rate);
        println!(
            "{:>12} {:>7.0} {:>7.0} {:>7.0} {:>8} {:>8} {:>7.0} {:>7.0} {:>7.0} {:>7.0} {:>8.3} {:>6.0} {:>5.2}",
            system.name(),
            rates().fold(f64::INFINITY, f64::min),
            median(rates()),
            rates().fold(0.0, f64::max),
            milliseconds(of(*system).filter_map(|reading| reading.p50_ms)),
            milliseconds(of(*system).filter_map(|reading| reading.p99_ms)),
            median_of(|reading| reading.client_us),
            median_of(|reading| reading.postgres_us),
            median_of(|reading| reading.broker_us),
            median_of(|reading| reading.client_us + reading.postgres_us + reading.broker_us),
            median_of(|reading| reading.commits),
            median_of(|reading| reading.wal),
            median_of(|reading| reading.busy_cpus),
        );
    }
    for other in [System::Handwritten, System::Raw] {
        if systems.contains(&System::Cap) && systems.contains(&other) {
            print_ratio(of(System::Cap), of(other), other, setting);
        }
    }
}

/// Prints how many times the rate of another system cap has, round by round: those two ran one after the other.
fn print_ratio<'a>(
    caps: impl Iterator<Item = &'a Reading>,
    others: impl Iterator<Item = &'a Reading>,
    other: System,
    setting: Setting,
) {
    let ratios: Vec<f64> = caps.zip(others).map(|(cap, other)| cap.rate / other.rate).collect();
    let with = match other {
        System::Handwritten => format!(" ({} tasks, {} queue)", setting.tasks, setting.queue),
        _ => String::new(),
    };
    println!(
        "cap / {}{with}: {:.2} / {:.2} / {:.2}",
        other.name(),
        ratios.iter().copied().fold(f64::INFINITY, f64::min),
        median(ratios.iter().copied()),
        ratios.iter().copied().fold(0.0, f64::max),
    );
}

fn milliseconds(figures: impl Iterator<Item = f64>) -> String {
    let figures: Vec<f64> = figures.collect();
    if figures.is_empty() { "-".to_owned() } else { format!("{:.2}", median(figures.into_iter())) }
}

fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(0.0)
}
