//! Panics on purpose.

/// Keeps panics that say that they are on purpose out of the tests' output.
pub(crate) fn quiet_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let on_purpose = info.payload_as_str().is_none_or(|text| text.contains("on purpose"));
            if !on_purpose {
                loud(info);
            }
        }));
    });
}

/// What a panic said.
pub(crate) fn panic_text(payload: &(dyn std::any::Any + Send)) -> String {
    (payload.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "(no text)".to_owned())
}

/// Runs code that is to panic, and gives what the panic said.
pub(crate) fn panics<R>(code: impl FnOnce() -> R) -> String {
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(code)) {
        Ok(_) => panic!("it did not panic"),
        Err(payload) => panic_text(&*payload),
    }
}
