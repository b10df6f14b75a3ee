//! One Rust file as the rules see it: the paths it names, resolved, with their lines.
//!
//! Resolution knows `crate`, `self`, `super`, the file's own `use` lines with their aliases, and its child modules.
//! Re-exports are followed within a crate, by `follow`, so that they neither hide a place nor stand for another.

use std::collections::BTreeMap;

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};

/// A path named in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mention {
    /// Segments from the crate on: `crate::link::x` in the gateway is `fairlead_gateway`, `link`, `x`.
    pub(crate) path: Vec<String>,
    /// Line from 1.
    pub(crate) line: usize,
    /// A `use` that ends in `*`.
    pub(crate) glob: bool,
    /// Compiled for tests only.
    pub(crate) test: bool,
}

impl Mention {
    /// The path as it would be written.
    pub(crate) fn text(&self) -> String {
        format!("`{}{}`", self.path.join("::"), if self.glob { "::*" } else { "" })
    }

    /// Whether the path lies in `prefix` (written with `::`), or brings it in by a `*` above it.
    pub(crate) fn reaches(&self, prefix: &str) -> bool {
        let prefix: Vec<&str> = prefix.split("::").collect();
        let inside = self.path.len() >= prefix.len() && self.path.iter().zip(&prefix).all(|(a, b)| a == b);
        let above = self.glob && self.path.len() < prefix.len() && self.path.iter().zip(&prefix).all(|(a, b)| a == b);
        inside || above
    }

    /// Whether the last segments are these.
    pub(crate) fn ends_with(&self, tail: &[&str]) -> bool {
        self.path.len() >= tail.len() && self.path.iter().rev().zip(tail.iter().rev()).all(|(a, b)| a == b)
    }
}

/// A method called by name; its receiver's type is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    /// The method.
    pub(crate) name: String,
    /// Line from 1.
    pub(crate) line: usize,
    /// Compiled for tests only.
    pub(crate) test: bool,
}

/// A parsed file.
pub(crate) struct SourceFile {
    /// Path, relative to the repository.
    pub(crate) name: String,
    /// The file's module from the crate on: `fairlead_gateway`, `link`, `roster`.
    pub(crate) module: Vec<String>,
    /// Every path named, in macros too.
    pub(crate) mentions: Vec<Mention>,
    /// Every method called.
    pub(crate) calls: Vec<Call>,
    /// Modules declared here under `#[cfg(test)]` whose text lies in another file.
    pub(crate) test_modules: Vec<Vec<String>>,
    /// Names of the modules written inside this file, with their lines.
    pub(crate) inline_modules: Vec<(String, usize)>,
    /// What `pub use` lines offer: the path it is offered as, the path it is.
    pub(crate) exports: Vec<(Vec<String>, Vec<String>)>,
}

/// Replaces re-exported paths by what they are: `link::Roster` by `link::roster::Roster`.
pub(crate) fn follow(path: &mut Vec<String>, exports: &BTreeMap<Vec<String>, Vec<String>>) {
    // A re-export of a re-export of … ends well before this; two that name each other end here.
    for _ in 0..8 {
        let Some((length, real)) = (1..=path.len()).find_map(|n| exports.get(&path[..n]).map(|real| (n, real))) else {
            return;
        };
        path.splice(..length, real.iter().cloned());
    }
}

impl SourceFile {
    /// Parses `text` as the file `name` (relative to the repository, below a `src` folder) of the library `library`.
    pub(crate) fn parse(name: &str, library: &str, text: &str) -> syn::Result<Self> {
        let file = syn::parse_file(text)?;
        let module = module_of(name, library);
        let mut imports = Reader::new(library, &module);
        imports.collecting = true;
        imports.visit_file(&file);
        let mut reader = Reader {
            aliases: imports.aliases,
            children: imports.children,
            ..Reader::new(library, &module)
        };
        reader.visit_file(&file);
        Ok(Self {
            name: name.to_owned(),
            module,
            mentions: reader.mentions,
            calls: reader.calls,
            test_modules: reader.test_modules,
            inline_modules: reader.inline_modules,
            exports: reader.exports,
        })
    }

    /// Whether the file's module lies in `prefix` (written with `::`).
    pub(crate) fn is_in(&self, prefix: &str) -> bool {
        let prefix: Vec<&str> = prefix.split("::").collect();
        self.module.len() >= prefix.len() && self.module.iter().zip(&prefix).all(|(a, b)| a == b)
    }

    /// The paths named in what ships.
    pub(crate) fn shipped(&self) -> impl Iterator<Item = &Mention> {
        self.mentions.iter().filter(|m| !m.test)
    }

    /// The methods called in what ships.
    pub(crate) fn shipped_calls(&self) -> impl Iterator<Item = &Call> {
        self.calls.iter().filter(|c| !c.test)
    }

    /// Says that the whole file is compiled for tests only.
    pub(crate) fn mark_as_test(&mut self) {
        self.mentions.iter_mut().for_each(|m| m.test = true);
        self.calls.iter_mut().for_each(|c| c.test = true);
    }
}

/// `gateway/src/link/mod.rs` and `gateway/src/link.rs` are both `fairlead_gateway::link`.
fn module_of(name: &str, library: &str) -> Vec<String> {
    let below = name.split_once("src/").map_or(name, |(_, rest)| rest);
    let mut module = vec![library.to_owned()];
    module.extend(below.trim_end_matches(".rs").split('/').map(str::to_owned));
    if module.len() == 2 && matches!(module[1].as_str(), "lib" | "main") || module.last().is_some_and(|m| m == "mod") {
        module.pop();
    }
    module
}

type Module = Vec<String>;

struct Reader {
    library: String,
    file_module: Module,
    module: Module,
    collecting: bool,
    test_depth: usize,
    /// Module -> name in scope -> what it stands for. Several where functions import the same name differently.
    aliases: BTreeMap<Module, BTreeMap<String, Vec<Vec<String>>>>,
    children: BTreeMap<Module, Vec<String>>,
    mentions: Vec<Mention>,
    calls: Vec<Call>,
    test_modules: Vec<Module>,
    inline_modules: Vec<(String, usize)>,
    exporting: bool,
    exports: Vec<(Module, Module)>,
}

impl Reader {
    fn new(library: &str, module: &[String]) -> Self {
        Self {
            library: library.to_owned(),
            file_module: module.to_vec(),
            module: module.to_vec(),
            collecting: false,
            test_depth: 0,
            aliases: BTreeMap::new(),
            children: BTreeMap::new(),
            mentions: Vec::new(),
            calls: Vec::new(),
            test_modules: Vec::new(),
            inline_modules: Vec::new(),
            exporting: false,
            exports: Vec::new(),
        }
    }

    /// `crate`, `self` and `super` at the front, made absolute.
    fn absolute(&self, path: &[String]) -> Vec<String> {
        let mut rest = path;
        let mut base: Option<Module> = None;
        while let Some(first) = rest.first() {
            match first.as_str() {
                "crate" | "$crate" => base = Some(vec![self.library.clone()]),
                "self" => base = Some(base.unwrap_or_else(|| self.module.clone())),
                "super" => {
                    let mut up = base.unwrap_or_else(|| self.module.clone());
                    up.pop();
                    base = Some(up);
                }
                _ => break,
            }
            rest = &rest[1..];
        }
        base.unwrap_or_default()
            .into_iter()
            .chain(rest.iter().cloned())
            .collect()
    }

    /// Everything the path may stand for in the current module.
    fn resolve(&self, path: &[String]) -> Vec<Vec<String>> {
        let Some(first) = path.first() else { return Vec::new() };
        if matches!(first.as_str(), "crate" | "$crate" | "self" | "super") {
            return vec![self.absolute(path)];
        }
        // INVARIANT: inline modules see the aliases of the modules around them, as `use super::*` would show them.
        for depth in (self.file_module.len()..=self.module.len()).rev() {
            let scope = &self.module[..depth];
            if let Some(stands_for) = self.aliases.get(scope).and_then(|names| names.get(first)) {
                return stands_for
                    .iter()
                    .map(|p| p.iter().chain(&path[1..]).cloned().collect())
                    .collect();
            }
            if self.children.get(scope).is_some_and(|c| c.contains(first)) {
                return vec![scope.iter().chain(path).cloned().collect()];
            }
        }
        // A lone name that nothing imports is a local one.
        if path.len() == 1 {
            Vec::new()
        } else {
            vec![path.to_vec()]
        }
    }

    fn mention(&mut self, path: Vec<String>, line: usize, glob: bool) {
        if !self.collecting {
            self.mentions.push(Mention {
                path,
                line,
                glob,
                test: self.test_depth > 0,
            });
        }
    }

    fn use_tree(&mut self, tree: &syn::UseTree, above: &[String], external: bool) {
        let with = |name: &syn::Ident| -> Vec<String> { above.iter().cloned().chain([plain(name)]).collect() };
        match tree {
            syn::UseTree::Path(path) => self.use_tree(&path.tree, &with(&path.ident), external),
            syn::UseTree::Group(group) => group.items.iter().for_each(|item| self.use_tree(item, above, external)),
            syn::UseTree::Name(name) if name.ident == "self" => {
                let known_as = above.last().cloned().unwrap_or_default();
                self.used(above, &known_as, name.ident.span().start().line, external);
            }
            syn::UseTree::Name(name) => self.used(
                &with(&name.ident),
                &plain(&name.ident),
                name.ident.span().start().line,
                external,
            ),
            syn::UseTree::Rename(name) if name.ident == "self" => {
                self.used(above, &plain(&name.rename), name.ident.span().start().line, external);
            }
            syn::UseTree::Rename(name) => self.used(
                &with(&name.ident),
                &plain(&name.rename),
                name.ident.span().start().line,
                external,
            ),
            syn::UseTree::Glob(glob) => {
                for path in self.use_path(above, external) {
                    self.mention(path, glob.star_token.spans[0].start().line, true);
                }
            }
        }
    }

    fn use_path(&self, path: &[String], external: bool) -> Vec<Vec<String>> {
        if external || self.collecting {
            vec![self.absolute(path)]
        } else {
            self.resolve_use(path)
        }
    }

    /// A `use` of a name that another `use` brought in stands for what that one named.
    fn resolve_use(&self, path: &[String]) -> Vec<Vec<String>> {
        let resolved = self.resolve(path);
        let itself = resolved.is_empty() || path.len() == 1;
        if itself { vec![self.absolute(path)] } else { resolved }
    }

    fn used(&mut self, path: &[String], known_as: &str, line: usize, external: bool) {
        for absolute in self.use_path(path, external) {
            if self.collecting {
                let names = self.aliases.entry(self.module.clone()).or_default();
                names.entry(known_as.to_owned()).or_default().push(absolute);
            } else {
                if self.exporting {
                    let offered = self.module.iter().cloned().chain([known_as.to_owned()]).collect();
                    self.exports.push((offered, absolute.clone()));
                }
                self.mention(absolute, line, false);
            }
        }
    }

    /// Paths and method calls inside a macro, where no grammar is known: `a::b::c` and `.name`.
    fn tokens(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Group(group) => self.tokens(group.stream()),
                TokenTree::Ident(ident) => {
                    let line = ident.span().start().line;
                    if at > 0 && is_punct(&tokens[at - 1], '.') {
                        self.calls.push(Call {
                            name: plain(ident),
                            line,
                            test: self.test_depth > 0,
                        });
                    } else {
                        let mut path = vec![plain(ident)];
                        while let [a, b, TokenTree::Ident(next), ..] = &tokens[at + 1..]
                            && is_punct(a, ':')
                            && is_punct(b, ':')
                        {
                            path.push(plain(next));
                            at += 3;
                        }
                        self.resolve(&path)
                            .into_iter()
                            .for_each(|p| self.mention(p, line, false));
                    }
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
            at += 1;
        }
    }

    fn within_test(&mut self, attributes: &[syn::Attribute], visit: impl FnOnce(&mut Self)) {
        let test = usize::from(attributes.iter().any(is_test));
        self.test_depth += test;
        visit(self);
        self.test_depth -= test;
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        self.within_test(attributes_of(item), |reader| visit::visit_item(reader, item));
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.within_test(&function.attrs, |reader| visit::visit_impl_item_fn(reader, function));
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.children
            .entry(self.module.clone())
            .or_default()
            .push(plain(&item.ident));
        self.module.push(plain(&item.ident));
        if item.content.is_some() {
            self.inline_modules
                .push((plain(&item.ident), item.ident.span().start().line));
            visit::visit_item_mod(self, item);
        } else if self.test_depth > 0 {
            self.test_modules.push(self.module.clone());
        }
        self.module.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.exporting = !matches!(item.vis, syn::Visibility::Inherited);
        self.use_tree(&item.tree, &[], item.leading_colon.is_some());
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<String> = path.segments.iter().map(|s| plain(&s.ident)).collect();
        let line = path.segments.first().map_or(0, |s| s.ident.span().start().line);
        let resolved = if path.leading_colon.is_some() {
            vec![segments]
        } else {
            self.resolve(&segments)
        };
        resolved.into_iter().for_each(|p| self.mention(p, line, false));
        visit::visit_path(self, path);
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        let line = call.method.span().start().line;
        self.calls.push(Call {
            name: plain(&call.method),
            line,
            test: self.test_depth > 0,
        });
        visit::visit_expr_method_call(self, call);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.visit_path(&call.path);
        self.tokens(call.tokens.clone());
    }

    // `pub(in …)` and attributes name paths without using what lies there.
    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}
    fn visit_attribute(&mut self, _: &'ast syn::Attribute) {}
}

fn plain(ident: &syn::Ident) -> String {
    let text = ident.to_string();
    text.strip_prefix("r#").map_or_else(|| text.clone(), str::to_owned)
}

fn is_punct(token: &TokenTree, wanted: char) -> bool {
    matches!(token, TokenTree::Punct(p) if p.as_char() == wanted)
}

/// `#[test]`, `#[tokio::test]`, and every `#[cfg(…)]` that holds in test builds only.
pub(crate) fn is_test(attribute: &syn::Attribute) -> bool {
    if attribute.path().is_ident("cfg") {
        return attribute.parse_args::<syn::Meta>().is_ok_and(|meta| needs_test(&meta));
    }
    attribute.path().segments.last().is_some_and(|s| s.ident == "test")
}

fn needs_test(condition: &syn::Meta) -> bool {
    let syn::Meta::List(list) = condition else {
        return condition.path().is_ident("test");
    };
    let parser = syn::punctuated::Punctuated::<syn::Meta, syn::Token![,]>::parse_terminated;
    let Ok(parts) = list.parse_args_with(parser) else {
        return false;
    };
    if list.path.is_ident("all") {
        parts.iter().any(needs_test)
    } else {
        list.path.is_ident("any") && !parts.is_empty() && parts.iter().all(needs_test)
    }
}

pub(crate) fn attributes_of(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Const(i) => &i.attrs,
        syn::Item::Enum(i) => &i.attrs,
        syn::Item::Fn(i) => &i.attrs,
        syn::Item::Impl(i) => &i.attrs,
        syn::Item::Macro(i) => &i.attrs,
        syn::Item::Mod(i) => &i.attrs,
        syn::Item::Static(i) => &i.attrs,
        syn::Item::Struct(i) => &i.attrs,
        syn::Item::Trait(i) => &i.attrs,
        syn::Item::Type(i) => &i.attrs,
        syn::Item::Use(i) => &i.attrs,
        _ => &[],
    }
}

#[path = "source_tests.rs"]
mod source_tests;
