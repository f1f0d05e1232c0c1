"""The numba kernels. Each public function of the library that needs speed has its kernel here."""
