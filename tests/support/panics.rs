//! Panics on purpose.

/// Keeps panics that say that they are on purpose out of the tests' output.
pub(crate) fn quiet_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let on_purpose = text_of(info.payload()).is_none_or(|text| text.contains("on purpose"));
            if !on_purpose {
                loud(info);
            }
        }));
    });
}

fn text_of(payload: &dyn std::any::Any) -> Option<&str> {
    (payload.downcast_ref::<&str>().copied()).or_else(|| payload.downcast_ref::<String>().map(String::as_str))
}

/// What a panic said.
pub(crate) fn panic_text(payload: &(dyn std::any::Any + Send)) -> String {
    text_of(payload).unwrap_or("(no text)").to_owned()
}

/// Runs code that is to panic, and gives what the panic said.
pub(crate) fn panics<R>(code: impl FnOnce() -> R) -> String {
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(code)) {
        Ok(_) => panic!("it did not panic"),
        Err(payload) => panic_text(&*payload),
    }
}
