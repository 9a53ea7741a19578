// The one translation unit that holds the bodies of Asio and Beast; see the separate-compilation
// macros in CMakeLists.txt.
#include <boost/asio/impl/src.hpp>
#include <boost/beast/src.hpp>
