//! The programs of README and of the pages in `docs/`, compiled as documentation tests.

/// The README.
#[doc = include_str!("../../README.md")]
pub struct Readme;

/// The dashboard.
#[doc = include_str!("../../docs/dashboard.md")]
pub struct DashboardPage;

/// Beside .NET CAP.
#[doc = include_str!("../../docs/dotnet.md")]
pub struct Dotnet;

/// For operators.
#[doc = include_str!("../../docs/operating.md")]
pub struct Operating;

/// When a handler fails.
#[doc = include_str!("../../docs/retries.md")]
pub struct Retries;

/// Whom cap trusts.
#[doc = include_str!("../../docs/security.md")]
pub struct Security;

/// Testing a service.
#[doc = include_str!("../../docs/testing.md")]
pub struct Testing;

/// The test kit.
#[doc = include_str!("../../cap-test/README.md")]
pub struct TestKit;
