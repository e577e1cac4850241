-- What is ready, and who may have it.
--
-- Tasks with the same requirements form a *class*; sessions that offer the same form a *kind*. Whether a kind may do a class is
-- told once. `ready:<class>` holds what is ready, by key; `waiting:<kind>` the claims that wait, by ticket; `classes` and
-- `kinds` list them. Memory keeps the first tasks of each class, and for each kind a heap of its classes by where their first
-- tasks stand, or before: who claims from a class leaves the other kinds' bounds as they are, and they are put right when they
-- come first. The version tells whether memory still agrees with what the server holds.

-- The queues of this fleet.
local Q
local queues_of, fleet_count = {}, 0
-- Classes that got something to do in this step, and those of which something is to be written.
local fresh, touched_classes = {}, {}
-- What sessions refuse, as far as this step has looked.
local refused_of = {}
-- What the other parts use of it.
local place_of, before, words_in, missing, is_dedicated, may_take, may, write_class, head_of, begin_queues, enter_class,
  leave_class, enter_kind, leave_kind, insert, remove_ready, search, first_ready, line_up, leave_line, first_in_line

do

-- How many of the first tasks of a class memory keeps.
local PAGE_MOST, PAGE_READ = 64, 16

-- Where a task stands: by key, then by the chain that waits for it, longer ones first, then by number. Its name comes along.
function place_of(rec)
  return { rec.key, terms_of(rec).behind .. rec.name16, rec.name16 }
end

function before(one, other)
  return one[1] < other[1] or one[1] == other[1] and one[2] < other[2]
end

local function read_place(member, key)
  return { tonumber(key), member, sub(member, 11) }
end

function words_in(text)
  local words = {}
  for word in string.gmatch(text, '%S+') do
    words[#words + 1] = word
  end
  return words
end

local function is_offered(offers, wanted)
  for _, offered in ipairs(offers) do
    if offered == wanted or sub(offered, 1, #wanted + 1) == wanted .. ':' then
      return true
    end
  end
  return false
end

-- What of the requirements is not offered.
function missing(offers, requires)
  local lacks = {}
  for _, wanted in ipairs(requires) do
    if not is_offered(offers, wanted) then
      lacks[#lacks + 1] = wanted
    end
  end
  return lacks
end

function is_dedicated(capabilities)
  for _, capability in ipairs(capabilities) do
    if sub(capability, 1, 5) == 'only:' then
      return true
    end
  end
  return false
end

-- Whether who offers this gets tasks that require that.
function may_take(offers, requires)
  return #missing(offers, requires) == 0 and (not is_dedicated(offers) or is_dedicated(requires))
end

local function push_heap(heap, entry)
  local nth = #heap + 1
  while nth > 1 do
    local parent = math.floor(nth / 2)
    if not before(entry, heap[parent]) then
      break
    end
    heap[nth] = heap[parent]
    nth = parent
  end
  heap[nth] = entry
end

local function pop_heap(heap)
  local size = #heap
  local last = heap[size]
  heap[size] = nil
  size = size - 1
  if size == 0 then
    return
  end
  local nth = 1
  while true do
    local child = nth * 2
    if child > size then
      break
    end
    if child < size and before(heap[child + 1], heap[child]) then
      child = child + 1
    end
    if not before(heap[child], last) then
      break
    end
    heap[nth] = heap[child]
    nth = child
  end
  heap[nth] = last
end

-- Where the first task of a class stands, for a kind, or before; nothing where there is none.
local function set_bound(kind, c, place)
  local entry = place and { place[1], place[2], c } or nil
  kind.bounds[c] = entry
  if entry then
    push_heap(kind.heap, entry)
    -- Old entries stay until they come first; where nobody claims, they would pile up.
    if #kind.heap > 64 and #kind.heap > 4 * kind.size then
      kind.heap = {}
      for _, each in pairs(kind.bounds) do
        push_heap(kind.heap, each)
      end
    end
  end
end

local function new_class(c, text, tasks)
  local class = {
    id = c, text = text, requires = words_in(text), tasks = tasks, kinds = {}, page = {}, whole = false, adds = {},
    removes = {}, key = P .. 'ready:class:' .. int(c), field = 'class:' .. int(c),
  }
  Q.classes[c], Q.by_requires[text] = class, class
  return class
end

local function new_kind(k, text, count)
  local kind = {
    id = k, text = text, offers = words_in(text), sessions = count, heap = {}, bounds = {}, classes = {}, size = 0,
    line = {}, at = {}, first = 1, last = 0, claims = 0, key = P .. 'waiting:' .. int(k),
  }
  Q.kinds[k], Q.by_offers[text] = kind, kind
  return kind
end

local function match(kind, class)
  if may_take(kind.offers, class.requires) then
    kind.classes[class.id], class.kinds[kind.id], kind.size = true, kind, kind.size + 1
  end
end

function may(kind, c)
  return kind.classes[c] == true
end

function write_class(class)
  if #class.removes > 0 then
    for from = 1, #class.removes, 1000 do
      call('ZREM', class.key, unpack(class.removes, from, at_most(from + 999, #class.removes)))
    end
    class.removes = {}
  end
  if #class.adds > 0 then
    for from = 1, #class.adds, 1000 do
      call('ZADD', class.key, unpack(class.adds, from, at_most(from + 999, #class.adds)))
    end
    class.adds = {}
  end
end

local function read_page(class, from, count)
  write_class(class)
  local found, places = call('ZRANGE', class.key, from, from + count - 1, 'WITHSCORES'), {}
  for nth = 1, #found, 2 do
    places[#places + 1] = read_place(found[nth], found[nth + 1])
  end
  return places
end

-- The first task of a class that is ready.
function head_of(class)
  if not class.page[1] and not class.whole then
    class.page = read_page(class, 0, PAGE_READ)
    class.whole = #class.page < PAGE_READ
  end
  return class.page[1]
end

-- Reads the queues anew, unless memory agrees with what the server holds.
local function load_queues()
  Q = queues_of[P]
  if Q and Q.version == T.version then
    return
  end
  Q = { version = T.version, classes = {}, by_requires = {}, kinds = {}, by_offers = {} }
  -- Few fleets are at work on one server at a time.
  if not queues_of[P] and fleet_count >= 100 then
    queues_of, numbers_of, fleet_count = {}, { [P] = T }, 0
  end
  fleet_count = fleet_count + (queues_of[P] and 0 or 1)
  queues_of[P] = Q
  local function each(list, prefix, make)
    local ids = call('SMEMBERS', P .. list)
    for from = 1, #ids, 500 do
      local fields = {}
      for nth = from, at_most(from + 499, #ids) do
        fields[#fields + 1] = prefix .. ids[nth]
      end
      local packed = call('HMGET', P .. 'tasks', unpack(fields))
      for nth, value in ipairs(packed) do
        if value then
          make(tonumber(ids[from + nth - 1]), sub(value, 8), (unpack_bytes('>I7', value)))
        end
      end
    end
  end
  each('kinds', 'kind:', new_kind)
  each('classes', 'class:', new_class)
  for _, kind in pairs(Q.kinds) do
    for _, class in pairs(Q.classes) do
      match(kind, class)
    end
    local found = T.waiting > 0 and call('ZRANGE', kind.key, 0, -1, 'WITHSCORES') or {}
    for nth = 1, #found, 2 do
      kind.last, kind.claims = kind.last + 1, kind.claims + 1
      kind.line[kind.last] = { tonumber(found[nth + 1]), tonumber(string.match(found[nth], '%d+$')) }
      kind.at[tonumber(found[nth + 1])] = kind.last
    end
  end
  for c, class in pairs(Q.classes) do
    local head = next(class.kinds) and head_of(class)
    for _, kind in pairs(class.kinds) do
      set_bound(kind, c, head)
    end
  end
end

-- Begins the part of a step that is about queues, unless it has begun.
function begin_queues()
  if not Q then
    fresh, touched_classes, refused_of = {}, {}, {}
    load_queues()
  end
end

-- What memory holds is not what is written any more, or will not be: it is read anew by whoever else has it.
local function change_queues()
  if not T.moved then
    T.moved = true
    T.version = T.version + 1
    Q.version = T.version
  end
end

local function save_class(class)
  change_queues()
  touched_classes[class], class.counts = true, true
end

-- The class of tasks with these requirements, which has one more from now on.
function enter_class(text)
  local class = Q.by_requires[text]
  if not class then
    T.last_class, T.classes = T.last_class + 1, T.classes + 1
    class = new_class(T.last_class, text, 0)
    class.whole = true
    for _, kind in pairs(Q.kinds) do
      match(kind, class)
    end
    call('SADD', P .. 'classes', int(class.id))
  end
  class.tasks = class.tasks + 1
  save_class(class)
  return class.id
end

-- A task of a class is finished.
function leave_class(c)
  local class = Q.classes[c]
  if not class then
    return
  end
  class.tasks = class.tasks - 1
  save_class(class)
  if class.tasks <= 0 then
    write_class(class)
    for _, kind in pairs(class.kinds) do
      kind.bounds[c], kind.classes[c], kind.size = nil, nil, kind.size - 1
    end
    Q.classes[c], Q.by_requires[class.text] = nil, nil
    touched_classes[class] = nil
    T.classes = T.classes - 1
    call('SREM', P .. 'classes', int(c))
    call('DEL', class.key)
    drop('class:' .. int(c))
  end
end

local function save_kind(kind)
  change_queues()
  write('kind:' .. int(kind.id), pack('>I7', kind.sessions) .. kind.text)
end

-- The kind of sessions that offer this, which has one more from now on.
function enter_kind(text)
  local kind = Q.by_offers[text]
  if not kind then
    T.last_kind = T.last_kind + 1
    kind = new_kind(T.last_kind, text, 0)
    for _, class in pairs(Q.classes) do
      match(kind, class)
      if kind.classes[class.id] then
        set_bound(kind, class.id, head_of(class))
      end
    end
    call('SADD', P .. 'kinds', int(kind.id))
  end
  kind.sessions = kind.sessions + 1
  save_kind(kind)
  return kind.id
end

-- A session of a kind is gone.
function leave_kind(k)
  local kind = Q.kinds[k]
  kind.sessions = kind.sessions - 1
  save_kind(kind)
  if kind.sessions <= 0 then
    for c in pairs(kind.classes) do
      Q.classes[c].kinds[k] = nil
    end
    Q.kinds[k], Q.by_offers[kind.text] = nil, nil
    call('SREM', P .. 'kinds', int(k))
    call('DEL', kind.key)
    drop('kind:' .. int(k))
  end
end

-- Puts a task that is ready into the queue of its class.
function insert(c, place)
  local class = Q.classes[c]
  change_queues()
  touched_classes[class] = true
  class.adds[#class.adds + 1], class.adds[#class.adds + 2] = place[1], place[2]
  local page = class.page
  if class.whole or page[1] and before(place, page[#page]) then
    local nth = #page + 1
    while nth > 1 and before(place, page[nth - 1]) do
      nth = nth - 1
    end
    table.insert(page, nth, place)
    if #page > PAGE_MOST then
      for last = #page, PAGE_READ + 1, -1 do
        page[last] = nil
      end
      class.whole = false
    end
  end
  if not class.fresh then
    class.fresh = true
    fresh[#fresh + 1] = class
  end
  for _, kind in pairs(class.kinds) do
    local bound = kind.bounds[c]
    if not bound or before(place, bound) then
      set_bound(kind, c, place)
    end
  end
end

function remove_ready(c, place)
  local class = Q.classes[c]
  change_queues()
  touched_classes[class] = true
  if #class.adds > 0 then
    write_class(class)
  end
  class.removes[#class.removes + 1] = place[2]
  for nth, each in ipairs(class.page) do
    if each[2] == place[2] then
      table.remove(class.page, nth)
      break
    end
  end
end

-- Walks what is ready in a class, in order, until `wanted` says yes; answers with that one.
function search(class, wanted)
  local first = head_of(class)
  local from = 0
  local page = class.page
  while first and page[1] do
    for _, place in ipairs(page) do
      if wanted(place[3]) then
        return place
      end
    end
    from = from + #page
    if page == class.page and class.whole then
      return nil
    end
    page = read_page(class, from, 100)
  end
end

-- The kind's class with the first task: that, and where it stands.
local function first_class(kind)
  local heap = kind.heap
  while heap[1] do
    local top = heap[1]
    local c = top[3]
    if kind.bounds[c] ~= top then
      pop_heap(heap)
    else
      local head = head_of(Q.classes[c])
      if head and head[1] == top[1] and head[2] == top[2] then
        return c, head
      end
      pop_heap(heap)
      set_bound(kind, c, head)
      heap = kind.heap
    end
  end
end

-- Where the first task stands that a kind may do and that is not skipped; and its class.
function first_ready(kind, skip)
  local c, head = first_class(kind)
  if not c or not skip or not skip(head[3]) then
    return head, c and Q.classes[c]
  end
  -- Classes whose first task is skipped are put aside until one is found whose first is not.
  local aside, best, of = {}, nil, nil
  while c and skip(head[3]) do
    aside[c] = head
    kind.bounds[c] = nil
    local found = search(Q.classes[c], function(name16) return not skip(name16) end)
    if found and (not best or before(found, best)) then
      best, of = found, Q.classes[c]
    end
    c, head = first_class(kind)
  end
  if c and (not best or before(head, best)) then
    best, of = head, Q.classes[c]
  end
  for each, place in pairs(aside) do
    set_bound(kind, each, place)
  end
  return best, of
end

-- Queues a waiting claim of a session.
function line_up(kind, ticket, n)
  change_queues()
  kind.last, kind.claims, T.waiting = kind.last + 1, kind.claims + 1, T.waiting + 1
  kind.line[kind.last], kind.at[ticket] = { ticket, n }, kind.last
  call('ZADD', kind.key, ticket, int(ticket) .. ' ' .. int(n))
end

function leave_line(kind, ticket, n)
  if call('ZREM', kind.key, int(ticket) .. ' ' .. int(n)) == 0 then
    return
  end
  change_queues()
  kind.claims, T.waiting = kind.claims - 1, T.waiting - 1
  if kind.at[ticket] then
    kind.line[kind.at[ticket]], kind.at[ticket] = nil, nil
  end
  while kind.first <= kind.last and not kind.line[kind.first] do
    kind.first = kind.first + 1
  end
  if kind.last - kind.first > 64 + 2 * kind.claims then
    -- Mostly gaps: those who are left move up.
    local line, last = {}, 0
    for nth = kind.first, kind.last do
      if kind.line[nth] then
        last = last + 1
        line[last], kind.at[kind.line[nth][1]] = kind.line[nth], last
      end
    end
    kind.line, kind.first, kind.last = line, 1, last
  end
end

-- The longest waiter of a kind that qualifies: {ticket, session}.
function first_in_line(kind, qualifies)
  for nth = kind.first, kind.last do
    local claim = kind.line[nth]
    if claim and qualifies(claim) then
      return claim
    end
  end
end

end
