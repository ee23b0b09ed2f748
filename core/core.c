// Placeholder translation unit until the first source lands.
typedef int core_is_never_empty;
