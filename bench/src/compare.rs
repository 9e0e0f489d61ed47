//! The rounds of a comparison: each scenario with each system by turns.

use clap::ValueEnum as _;

use crate::BoxResult;
use crate::arguments::Compare;
use crate::by_hand::Setting;
use crate::measure::reading::Reading;
use crate::report;
use crate::scenario::{Scenario, System};
use crate::site::Site;

/// Runs the chosen scenarios, and prints each as soon as it is measured.
pub(crate) async fn compare(arguments: &Compare) -> BoxResult<()> {
    let is_chosen = |scenario: &Scenario| {
        arguments.only.contains(scenario) || arguments.only.is_empty() && !scenario.is_opt_in()
    };
    if !arguments.json {
        report::print_head(arguments);
    }
    for scenario in Scenario::value_variants().iter().copied().filter(is_chosen) {
        let systems: Vec<System> = scenario
            .systems()
            .iter()
            .copied()
            .filter(|system| {
                arguments.system.is_empty() || arguments.system.iter().any(|name| name == system.name())
            })
            .collect();
        let setting = if systems.contains(&System::Handwritten) {
            best_setting(scenario, arguments).await?
        } else {
            Setting::default()
        };
        let mut readings = Vec::new();
        for round in 1..=arguments.rounds {
            for system in &systems {
                let site = Site::new(arguments).await?;
                let reading = scenario.run(*system, setting, site).await?;
                let reading = Reading { scenario: scenario.name(), system: system.name(), round, ..reading };
                if arguments.json {
                    println!("{}", serde_json::to_string(&reading)?);
                }
                readings.push(reading);
            }
        }
        if !arguments.json {
            report::print(&scenario.name(), &systems, setting, &readings);
        }
    }
    Ok(())
}

/// Tries each setting of the hand-written loop once, and returns the fastest.
async fn best_setting(scenario: Scenario, arguments: &Compare) -> BoxResult<Setting> {
    let settings = scenario.settings();
    let mut best = (settings.first().copied().unwrap_or_default(), 0.0);
    if settings.len() > 1 {
        for setting in settings {
            let site = Site::new(arguments).await?;
            // Each task has two connections; some are left to others.
            if 2 * setting.tasks + 20 > site.database.max_connections().await? {
                site.discard().await?;
                continue;
            }
            let reading = scenario.run(System::Handwritten, setting, site).await?;
            if reading.rate > best.1 {
                best = (setting, reading.rate);
            }
        }
    }
    Ok(best.0)
}
