//! repositoryd
