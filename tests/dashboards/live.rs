//! Every query against a real Prometheus.
