// libtorch's wheel has no Gloo headers; what its own headers name of Gloo is declared in this folder.
#pragma once
