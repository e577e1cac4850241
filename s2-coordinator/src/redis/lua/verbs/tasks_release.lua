-- tasks_release <how> <who> <n> <task>* (<task> <n> <task>*)*: each of the first n waits for the next, and the last for the
-- first, which has the smallest number; and each of the others waits for these and no others. Answers whether that is so; then
-- who is to go on does (`proceed`), or fails (`abort`), or waits for a person (`ask`).
local function waits_for(rec, id)
  for _, edge in ipairs(waits_of(rec)) do
    if edge[1] == id then
      return true
    end
  end
  return false
end

local function is_ring(cycle)
  for nth, id in ipairs(cycle) do
    local rec = find_task(id)
    if not rec or not waits_for(rec, cycle[nth % #cycle + 1]) then
      return false
    end
  end
  return true
end

-- Whether a task waits for what is said from here on, and for nothing else.
local function waits_for_these(rec, place, count)
  if not rec or #waits_of(rec) ~= count then
    return false
  end
  for nth = place, place + count - 1 do
    if not waits_for(rec, tonumber(ARGV[nth])) then
      return false
    end
  end
  return true
end

-- The ring as a task of it sees it: itself first.
local function seen_from(id, cycle)
  local nth, turned = 1, {}
  while cycle[nth] ~= id do
    nth = nth + 1
  end
  for place = 1, #cycle do
    turned[place] = cycle[(nth + place - 2) % #cycle + 1]
  end
  return turned
end

local function say(operation, cycle, params, severity)
  record('{"component":"deadlock","operation":"' .. operation .. '","subject":"' .. int(cycle[1]) .. '","params":{' .. params ..
    '},"severity":"' .. severity .. '"}')
end

local function verb()
  local how, who, cycle, fields = ARGV[5], tonumber(ARGV[6]), {}, {}
  local place = 8 + tonumber(ARGV[7])
  for nth = 8, place - 1 do
    cycle[#cycle + 1] = tonumber(ARGV[nth])
    fields[#fields + 1], fields[#fields + 2] = name_of(ARGV[nth]), name_of(ARGV[nth]) .. 'w'
  end
  open(fields)
  begin_queues()
  if not is_ring(cycle) then
    return { 'ok', 0 }
  end
  while place < #ARGV do
    local count = tonumber(ARGV[place + 1])
    if not waits_for_these(find_named(name_of(ARGV[place])), place + 2, count) then
      return { 'ok', 0 }
    end
    place = place + 2 + count
  end
  local rec = find_task(who)
  local wait = rec and wait_of(rec)
  if not rec or how ~= 'abort' and (not wait or how == 'proceed' and wait.again) then
    return { 'ok', 0 }
  end
  say('detected', cycle, '"cycle":' .. quoted(cycle), 'HIGH')
  if how == 'proceed' then
    deadlock.preempt(rec, seen_from(who, cycle))
  elseif how == 'ask' then
    deadlock.leave_to_a_person(rec, seen_from(who, cycle))
    return { 'ok', 1 }
  else
    fail(rec, 'deadlock', seen_from(who, cycle))
  end
  say('resolved', cycle, '"task":' .. int(who), 'INFO')
  return { 'ok', 1 }
end
