//! EAL, ports, pools and packet buffers as safe types; the only place that calls the bindings.
