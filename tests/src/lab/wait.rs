//! Waiting for a state that nobody announces.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How long a state may take to come on a machine that is busy with other things.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Looks until there is something to see, and panics with `what` when it does not come within [`PATIENCE`].
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(
            began.elapsed() < PATIENCE,
            "within {} s did not come: {what}",
            PATIENCE.as_secs()
        );
        sleep(PAUSE).await;
    }
}
