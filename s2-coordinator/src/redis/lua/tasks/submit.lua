-- Submitting tasks: everything that can be wrong with a batch, before anything is written; then the writing.
--
-- A new task is four arguments: head, requirements (joined by blanks), what the journal says of it, text. What is in the head:
-- `docs/wire/tasks.md`.

local TASK_PARTS = 4
-- What the other parts use of it.
local check_tasks_room, plan_tasks, begin_task, accept, path_to

do

-- attempts, lease, time-out, start, deadline, parent, bytes; priority, start and deadline relative; fingerprint; lengths
local HEAD = '>I4I7I7I7I7I7I4BBBc32I2I2I2I2I2'

-- What heads say is read once where they are alike.
local last_head, last_said

local function read_head(head)
  if head == last_head then
    return last_said
  end
  local said = {}
  local key, assignee, kind, trace, after, place
  said.attempts, said.lease, said.timeout, said.start, said.deadline, said.parent, said.bytes, said.priority, said.start_in,
    said.deadline_in, said.fingerprint, key, assignee, kind, trace, after, place = unpack_bytes(HEAD, head)
  local function text(length)
    place = place + length
    return sub(head, place - length, place - 1)
  end
  said.key, said.assignee, said.kind, said.trace = text(key), text(assignee), text(kind), text(trace)
  said.after = {}
  for nth = 1, after do
    local code, by_key, on
    code, by_key, on, place = unpack_bytes('>BBI7', head, place)
    said.after[nth] = { by_key == 1 and text(on) or on, code }
  end
  last_head, last_said = head, said
  return said
end

-- What is there already, or the same as an earlier one of the batch; or nothing.
local function plan_one(nth, new, firsts, heads, requires, parent)
  if new.key ~= '' then
    local used = read('key:' .. new.key)
    if used then
      local original = unpack_bytes('>I7', used)
      if sub(used, 8) ~= new.fingerprint then
        return nil, { 'task_conflict', new.key, original }
      end
      return { known = original }
    end
    local first = firsts[new.key]
    if first then
      if heads[first].fingerprint ~= new.fingerprint then
        return nil, { 'same_key', first - 1, nth - 1 }
      end
      return { same = first }
    end
    firsts[new.key] = nth
  end
  local session = new.assignee ~= '' and named(new.assignee)
  if session then
    local offers, words = Q.kinds[session.kind].offers, words_in(requires)
    if not may_take(offers, words) then
      return nil, { 'assignee', nth - 1, missing(offers, words) }
    end
  end
  local plan = { new = new, after = {}, parent = new.parent > 0 and new.parent or parent, depth = 0, path = 1 }
  if plan.parent > 0 then
    local rec = find_task(plan.parent)
    if not rec then
      return nil, { 'unknown_task', plan.parent }
    end
    plan.depth = terms_of(rec).depth + 1
  end
  return plan
end

-- What a task waits for, each once: {id}, or {nil, number in the batch}, and what if it fails.
local function resolve(plan, firsts)
  local known = {}
  for _, dependency in ipairs(plan.new.after) do
    local on, nth, there = dependency[1], nil, nil
    if type(on) == 'number' then
      there = find_task(on)
      if not there then
        return { 'unknown_task', on }
      end
    else
      nth = firsts[on]
      if not nth then
        local used = read('key:' .. on)
        if not used then
          return { 'unknown_key', on }
        end
        on = unpack_bytes('>I7', used)
      end
    end
    local name = nth and 'n' .. nth or on
    if not known[name] then
      known[name] = true
      table.insert(plan.after, { not nth and on or nil, dependency[2], nth })
    end
  end
end

-- An order in which each new task comes after what it waits for; or nothing, and some that wait for each other.
local function in_order(plans)
  local left, dependants, order = {}, {}, {}
  for nth, plan in ipairs(plans) do
    left[nth], dependants[nth] = 0, dependants[nth] or {}
    for _, edge in ipairs(plan.after or {}) do
      if edge[3] then
        left[nth] = left[nth] + 1
        dependants[edge[3]] = dependants[edge[3]] or {}
        table.insert(dependants[edge[3]], nth)
      end
    end
  end
  for nth = 1, #plans do
    if left[nth] == 0 then
      order[#order + 1] = nth
    end
  end
  local done = 1
  while done <= #order do
    for _, dependant in ipairs(dependants[order[done]]) do
      left[dependant] = left[dependant] - 1
      if left[dependant] == 0 then
        order[#order + 1] = dependant
      end
    end
    done = done + 1
  end
  if #order == #plans then
    return order
  end
  -- Each that is left waits for another that is left; so following them leads around a cycle.
  local at, passed, when = nil, {}, {}
  for nth = 1, #plans do
    if left[nth] > 0 then
      at = nth
      break
    end
  end
  while not when[at] do
    passed[#passed + 1] = at
    when[at] = #passed
    for _, edge in ipairs(plans[at].after) do
      if edge[3] and left[edge[3]] > 0 then
        at = edge[3]
        break
      end
    end
  end
  local cycle = {}
  for nth = when[at], #passed do
    cycle[#cycle + 1] = passed[nth] - 1
  end
  return nil, cycle
end

-- The longest chain of tasks of the batch that wait for each.
local function measure_paths(plans, order)
  for place = #order, 1, -1 do
    local plan = plans[order[place]]
    for _, edge in ipairs(plan.after or {}) do
      local on = edge[3] and plans[edge[3]]
      if on and on.path then
        on.path = at_least(on.path, plan.path + 1)
      end
    end
  end
end

-- Whether there is room for tasks with these requirements, when so many others end.
function check_tasks_room(requires, ending)
  local unfinished = T[WAITING] + T[DELAYED] + T[READY] + T[CLAIMED] + T[BLOCKED] + T[ON_HOLD]
  local count = at_least(unfinished + #requires - ending, 0)
  if count > C.tasks then
    return { 'limit', 'tasks', count }
  end
  local classes, known = T.classes, {}
  for _, text in ipairs(requires) do
    if not Q.by_requires[text] and not known[text] then
      known[text], classes = true, classes + 1
    end
  end
  if classes > C.classes then
    return { 'limit', 'classes', classes }
  end
end

-- Checks a batch of `count` tasks, whose arguments are in `list` from a place on, against what is there. `parent` is what they
-- are parts of unless they say otherwise, and `ending` how many tasks end with it. Answers with what is to become of each; or
-- nothing and what is wrong.
function plan_tasks(list, from, count, parent, ending)
  if count == 0 then
    return {}
  end
  local new, plans, firsts, wanted = {}, {}, {}, {}
  for nth = 1, count do
    new[nth] = read_head(list[from + (nth - 1) * TASK_PARTS])
    if new[nth].key ~= '' then
      wanted[#wanted + 1] = 'key:' .. new[nth].key
    end
    for _, dependency in ipairs(new[nth].after) do
      wanted[#wanted + 1] = type(dependency[1]) == 'number' and id16(dependency[1]) or 'key:' .. dependency[1]
    end
  end
  fetch(wanted)
  local has_edges = false
  for nth = 1, count do
    local base = from + (nth - 1) * TASK_PARTS
    local plan, wrong = plan_one(nth, new[nth], firsts, new, list[base + 1], parent)
    if not plan then
      return nil, wrong
    end
    plan.requires, plan.entry, plan.text = list[base + 1], list[base + 2], list[base + 3]
    plans[nth] = plan
  end
  for _, plan in ipairs(plans) do
    local wrong = plan.new and resolve(plan, firsts)
    if wrong then
      return nil, wrong
    end
    has_edges = has_edges or plan.new and #plan.after > 0
  end
  if has_edges then
    local order, cycle = in_order(plans)
    if not order then
      return nil, { 'batch_cycle', cycle }
    end
    measure_paths(plans, order)
  end
  local requires, children = {}, {}
  for _, plan in ipairs(plans) do
    if plan.new then
      requires[#requires + 1] = plan.requires
    end
  end
  local wrong = check_tasks_room(requires, ending)
  if wrong then
    return nil, wrong
  end
  for nth, plan in ipairs(plans) do
    if plan.new then
      if plan.depth > C.depth then
        return nil, { 'depth', plan.depth, nth - 1 }
      elseif plan.parent > 0 then
        children[plan.parent] = (children[plan.parent] or find_task(plan.parent).children) + 1
        if children[plan.parent] > C.children then
          return nil, { 'children', children[plan.parent], plan.parent }
        end
      end
    end
  end
  return plans
end

-- Lets a task that is new, or as new, wait for what is not finished, or go on. If it is redriven, somebody has decided that it
-- need not be on hold.
function begin_task(rec, after, redriven)
  local fails, holds_on
  for _, edge in ipairs(after) do
    local other = find_task(edge[1])
    if other and not is_finished(other) then
      add_edge(rec, edge[1], edge[2])
    elseif other and other.state ~= DONE then
      if edge[2] == ON_FAILURE.fail and not fails then
        fails = edge[1]
      elseif edge[2] == ON_FAILURE.hold and not redriven and not holds_on then
        holds_on = edge[1]
      end
    end
  end
  if fails then
    fail(rec, 'dependency', fails)
  elseif holds_on then
    put_on_hold(rec, holds_on)
  else
    proceed(rec)
  end
end

-- The terms of the last task that was written: in a batch most are alike.
local last_terms

local function add_task(plan, id, after)
  local new = plan.new
  local start = at_least(new.start_in == 1 and now + new.start or new.start, now)
  local deadline = new.deadline > 0 and (new.deadline_in == 1 and now + new.deadline or new.deadline) or 0
  local rec = {
    id = id, name16 = id16(id), packed = '', touched = false, place = false, waits = false, state = WAITING, flags = 0,
    since = start, failures = 0, children = 0, number = 0, token = 0, resumes = 0, started = 0, till = 0, progressed = 0,
    end_token = 0, end_code = 0, end_at = 0, holder = '', assignee = new.assignee,
  }
  local path = C.critical_path == 1 and plan.path or 0
  local same = last_terms and new == last_terms.new and now == last_terms.now and plan.depth == last_terms.depth and
    path == last_terms.path and plan.parent == last_terms.parent
  if not same then
    local terms = pack(TERMS, new.priority, new.attempts, new.lease, new.timeout, now, start, deadline, plan.depth, path,
      plan.parent, new.bytes, #new.kind, #new.trace) .. new.kind .. new.trace
    last_terms = { terms = terms, new = new, now = now, depth = plan.depth, path = path, parent = plan.parent }
  end
  rec.terms = last_terms.terms
  rec.key = order_key(start, new.priority)
  rec.class = enter_class(plan.requires)
  loaded[rec.name16] = rec
  touch(rec)
  write(rec.name16 .. 'd', plan.text)
  if #after > 0 then
    write(rec.name16 .. 'f', pack_edges(after))
    with(rec, FLAG.after)
  end
  record('{"component":"task","operation":"submitted","subject":"' .. digits(rec) .. '",' .. plan.entry)
  local parent = plan.parent > 0 and find_task(plan.parent)
  if parent then
    parent.children = parent.children + 1
    touch(parent)
  end
  if new.key ~= '' then
    write('key:' .. new.key, pack('>I7', id) .. new.fingerprint)
    write(rec.name16 .. 'k', new.key)
    with(rec, FLAG.keyed)
  end
  if deadline > 0 then
    arm_timer(DUE.deadline .. rec.name16, deadline)
  end
  T[WAITING] = T[WAITING] + 1
  return rec
end

-- Writes a batch that was planned in this step; answers with numbers and whether each was there already, in turn.
function accept(plans)
  local count, ids, answers, recs = 0, {}, {}, {}
  for _, plan in ipairs(plans) do
    count = count + (plan.new and 1 or 0)
  end
  local first = at_least(M.number + 1, target)
  if count > 0 then
    M.number, M.changed = first + count - 1, true
  end
  for nth, plan in ipairs(plans) do
    if plan.new then
      ids[nth], first = first, first + 1
    else
      ids[nth] = plan.known or ids[plan.same]
    end
    answers[#answers + 1], answers[#answers + 2] = ids[nth], plan.new and 0 or 1
  end
  local listed = {}
  for nth, plan in ipairs(plans) do
    if plan.new then
      local after = {}
      for place, edge in ipairs(plan.after) do
        after[place] = { edge[1] or ids[edge[3]], edge[2] }
      end
      recs[nth], plan.after = add_task(plan, ids[nth], after), after
      listed[#listed + 1], listed[#listed + 2] = ids[nth], recs[nth].name16
    end
  end
  for from = 1, #listed, 1000 do
    call('ZADD', P .. 'ids', unpack(listed, from, at_most(from + 999, #listed)))
  end
  for nth, plan in ipairs(plans) do
    if plan.new then
      begin_task(recs[nth], plan.after, false)
    end
  end
  return answers, ids
end

local LOOK_AT = 10000

-- A way from one of these tasks to `id` along what they wait for, if there is one: a cycle.
function path_to(id, from)
  local came_from, next_, count = {}, {}, 0
  for _, task in ipairs(from) do
    if came_from[task] == nil then
      came_from[task], count = false, count + 1
      next_[#next_ + 1] = task
    end
  end
  while #next_ > 0 do
    local at = table.remove(next_)
    if at == id then
      local cycle = {}
      while at do
        table.insert(cycle, 1, at)
        at = came_from[at]
      end
      table.insert(cycle, 1, table.remove(cycle))
      return cycle
    end
    if count > LOOK_AT then
      return nil
    end
    local rec = find_task(at)
    for _, edge in ipairs(rec and waits_of(rec) or {}) do
      if came_from[edge[1]] == nil then
        came_from[edge[1]], count = at, count + 1
        next_[#next_ + 1] = edge[1]
      end
    end
  end
end

end
