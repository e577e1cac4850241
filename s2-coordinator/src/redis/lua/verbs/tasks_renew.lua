-- tasks_renew (<task> <token>)*: answers with a deadline for each, or why not.
local function verb()
  local fields, answers = {}, {}
  for place = 5, #ARGV, 2 do
    fields[#fields + 1] = name_of(ARGV[place])
  end
  open(fields)
  begin_queues()
  for place = 5, #ARGV, 2 do
    local rec, token = find_named(name_of(ARGV[place])), tonumber(ARGV[place + 1])
    if rec and holds(rec, token) then
      answers[#answers + 1] = renew(rec)
    else
      answers[#answers + 1] = stale(rec)
    end
  end
  return { 'ok', answers }
end
